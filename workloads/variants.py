"""The ways to run a server that the figures compare."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from fastsocket.build import LIBRARY
from fastsocket.launch import Wishes
from fastsocket.launch import environment as preloaded
from fastsocket.steering import Mode

LIBRARY_OFF = Wishes(listen_table=False, fast_epoll=False)


@dataclass(frozen=True)
class Variant:
    """One way to run a server, the same for every server."""

    name: str
    description: str
    own_reuseport: bool = False     # the server opens a SO_REUSEPORT listener per worker itself
    preload: Wishes | None = None   # what is asked of libfsocket.so; None: it is not preloaded
    steering: Mode = "rss"          # the emulated NIC's mode

    @property
    def has_local_listeners(self) -> bool:
        """Whether libfsocket.so clones listeners, and so counts what it does."""
        return self.preload is not None and self.preload.listen_table is not False

    def environment(self) -> Mapping[str, str]:
        """For the server's process."""
        return preloaded(os.environ, LIBRARY, self.preload) if self.preload else os.environ


VARIANTS = {variant.name: variant for variant in (
    Variant("base", "one listener shared by all workers"),
    Variant("latest", "the server's own SO_REUSEPORT listeners", own_reuseport=True),
    Variant("fastsocket", "libfsocket.so preloaded, steering by perfect filters", preload=Wishes(), steering="perfect"),
    Variant("fast-epoll", "fastsocket with Fast-Epoll", preload=Wishes(fast_epoll=True), steering="perfect"),
    Variant("off", "libfsocket.so preloaded with everything off", preload=LIBRARY_OFF),
)}
