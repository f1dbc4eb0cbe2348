"""The ways to run a server that the figures compare."""

from dataclasses import dataclass

from fastsocket.nic import Mode


@dataclass(frozen=True)
class Variant:
    """One way to run a server, the same for every server."""

    name: str
    description: str
    own_reuseport: bool = False  # the server opens a SO_REUSEPORT listener per worker itself
    preload: bool = False        # libfsocket.so is preloaded
    steering: Mode = "rss"       # the emulated NIC's mode


VARIANTS = {variant.name: variant for variant in (
    Variant("base", "one listener shared by all workers"),
    Variant("latest", "the server's own SO_REUSEPORT listeners", own_reuseport=True),
    Variant("fastsocket", "libfsocket.so preloaded, steering by perfect filters", preload=True, steering="perfect"),
)}
