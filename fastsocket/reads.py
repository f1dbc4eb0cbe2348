"""A probe sees by one of two kernel tracepoints that an application reads (fastsocket/bpf/locality.bpf.c)."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from fastsocket.build import bpf_object
from fastsocket.libbpf import BpfObject, has_tracepoint

# The better tracepoint first. The second tells neither the length of a read nor whether the read only peeked.
TRACEPOINTS = ("sock_recv_length", "tcp_rcv_space_adjust")
OF_LINUX_6_3 = "sock_recv_length came with Linux 6.3, commit 6e6eda44b939, or a distribution's backport of it"


def tracepoint() -> str:
    """The better tracepoint that this kernel has. If it has neither, the one that an error message should name."""
    return next((name for name in TRACEPOINTS if has_tracepoint(name)), TRACEPOINTS[0])


def load(
    name: str, seen_by: str, without: Iterable[str] = (), entries: Mapping[str, int] = MappingProxyType({})
) -> BpfObject:
    """Load a BPF object that has a program for each of the two tracepoints, with the program for one of them only.

    name: the object. seen_by: the tracepoint whose program is loaded. without: further programs to leave out. entries:
    how many elements maps have, by the map's name. Raises BpfError.
    """
    programs = BpfObject(bpf_object(name))
    try:
        for sized, most in entries.items():
            programs.resize(sized, most)
        for other in {*TRACEPOINTS, *without} - {seen_by}:
            programs.leave_out(other)
        programs.load()
    except BaseException:
        programs.close()
        raise
    return programs
