"""The ways to run a server that the figures compare."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fastsocket.build import LIBRARY
from fastsocket.launch import Wishes
from fastsocket.launch import environment as preloaded
from fastsocket.steering import Mode
from fastsocket.steering.rfs import Rfs

LIBRARY_OFF = Wishes(listen_table=False, fast_epoll=False, flow_deliver=False)
DELIVERED = Wishes(flow_deliver=True)


@dataclass(frozen=True)
class Variant:
    """One way to run a server, the same for every server."""

    name: str
    description: str
    own_reuseport: bool = False     # the server opens a SO_REUSEPORT listener per worker itself
    preload: Wishes | None = None   # what is asked of libfsocket.so; None: it is not preloaded
    steering: Mode = "rss"          # the emulated NIC's mode
    rfs: bool = False               # the kernel passes packets on to the CPU that reads

    @property
    def has_local_listeners(self) -> bool:
        """Whether libfsocket.so clones listeners, and so counts what it does."""
        return self.preload is not None and self.preload.listen_table is not False

    def why_not(self) -> str | None:
        """Why this machine cannot run it, or None."""
        return Rfs().why_not() if self.rfs else None

    def environment(self) -> Mapping[str, str]:
        """For the server's process."""
        return preloaded(os.environ, LIBRARY, self.preload) if self.preload else os.environ


VARIANTS = {variant.name: variant for variant in (
    Variant("base", "one listener shared by all workers"),
    Variant("latest", "the server's own SO_REUSEPORT listeners", own_reuseport=True),
    Variant("rfs", "latest, and Receive Flow Steering", own_reuseport=True, rfs=True),
    Variant("fastsocket", "libfsocket.so preloaded, steering by perfect filters", preload=DELIVERED, steering="perfect"),
    Variant("fast-epoll", "fastsocket with Fast-Epoll", preload=replace(DELIVERED, fast_epoll=True),
            steering="perfect"),
    Variant("any-port", "fastsocket, but the kernel chooses source ports", preload=Wishes(), steering="perfect"),
    Variant("atr", "fastsocket steered by ATR", preload=DELIVERED, steering="atr"),
    Variant("atr-any-port", "steered by ATR, and the kernel chooses source ports", preload=Wishes(), steering="atr"),
    Variant("rss", "fastsocket steered by RSS", preload=DELIVERED, steering="rss"),
    Variant("rss-any-port", "steered by RSS, and the kernel chooses source ports", preload=Wishes(), steering="rss"),
    Variant("off", "libfsocket.so preloaded with everything off", preload=LIBRARY_OFF),
)}
