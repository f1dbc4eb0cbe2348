"""The few calls of libbpf.so.1 that we need, as Python objects that own what they opened (libbpf 1.0 or later).

The Python bindings on PyPI either bring a compiler (bcc) or cannot attach to a tracepoint with BTF. The C API is stable
and small, so this module calls it through ctypes. Names follow libbpf's: <bpf/libbpf.h>, <bpf/bpf.h>.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Self

from fastsocket.refusal import Cause, cause_of, telling_line

INGRESS, EGRESS = 1 << 0, 1 << 1  # BPF_TC_INGRESS, BPF_TC_EGRESS
FILTER_PRIORITY = 0x4653  # "FS": a later process knows our tc filters by this priority, and can remove them
XDP_IF_NO_EXIST = 1 << 0  # XDP_FLAGS_UPDATE_IF_NOEXIST in <linux/if_link.h>
XDP_GENERIC, XDP_NATIVE = 1 << 1, 1 << 2  # XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE
BTF_KIND_TYPEDEF = 8  # <linux/btf.h>
STATS_RUN_TIME = 0  # BPF_STATS_RUN_TIME in <linux/bpf.h>
_RUN_TIME = struct.Struct("=192xQ")  # run_time_ns in struct bpf_prog_info of <linux/bpf.h>
LOG_LINES_SHOWN = 30
DEBUG = 2  # LIBBPF_DEBUG: at this level libbpf tells what it parsed, in hundreds of lines


class BpfError(Exception):
    """libbpf or the kernel refused. The message is the reason in one line; cause says what is missing.

    log has the lines that libbpf and the kernel wrote. A traceback shows the last of them as a note (PEP 678).
    """

    exit_status = 3

    def __init__(self, reason: str, cause: Cause = Cause.OTHER, log: Sequence[str] = ()):
        super().__init__(reason)
        self.reason, self.cause, self.log = reason, cause, list(log)
        if log:
            self.add_note("\n".join(log[-LOG_LINES_SHOWN:]))


class _TcHook(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    ]


class _TcOptions(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    ]


class _TestRunOptions(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    ]


_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
NOT_THERE, THERE = -errno.ENOENT, -errno.EEXIST
_POINTERS = (
    "bpf_object__open_file",
    "bpf_object__find_program_by_name",
    "bpf_object__find_map_by_name",
    "bpf_program__attach",
    "bpf_map__initial_value",
)


def _load_libbpf() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise BpfError(f"{error}", Cause.NO_LIBBPF) from error
    for name in _POINTERS:
        getattr(library, name).restype = ctypes.c_void_p
    library.bpf_map__value_size.restype = ctypes.c_uint32
    return library


class BpfObject:
    """A compiled BPF object file: set its variables, load it, then attach its programs and read its maps.

    close() and the end of the process remove everything that it holds in the kernel, except tc filters, which live as
    long as their device. Raises BpfError, with the verifier's log when the verifier refused.
    """

    def __init__(self, path: Path):
        self._libbpf = _load_libbpf()
        self._log: list[str] = []
        self._print = _PRINT(self._keep_log)  # libbpf keeps a pointer to it, so it must live as long as this object
        self._links: list[ctypes.c_void_p] = []
        self._object: ctypes.c_void_p | None = None
        with self._logging():
            self._object = self._pointer(self._libbpf.bpf_object__open_file(os.fsencode(path), None), f"open {path}")

    def _keep_log(self, level: int, template: bytes, arguments: int) -> int:
        if level >= DEBUG:
            return 0
        text = ctypes.create_string_buffer(65536)
        ctypes.CDLL(None).vsnprintf(text, len(text), template, ctypes.c_void_p(arguments))
        self._log += text.value.decode(errors="replace").splitlines()
        return 0

    @contextmanager
    def _logging(self) -> Iterator[None]:
        previous = self._libbpf.libbpf_set_print
        previous.restype = ctypes.c_void_p
        before = previous(self._print)
        try:
            yield
        finally:
            previous(ctypes.c_void_p(before))

    def _failure(self, what: str, code: int) -> BpfError:
        return BpfError(f"cannot {what}: {telling_line(code, self._log)}", cause_of(code, self._log), self._log)

    def _check(self, result: int, what: str) -> int:
        if result < 0:
            raise self._failure(what, -result)
        return result

    def _pointer(self, address: int | None, what: str) -> ctypes.c_void_p:
        if not address:
            raise self._failure(what, ctypes.get_errno())
        return ctypes.c_void_p(address)

    def _map(self, name: str) -> ctypes.c_void_p:
        return self._pointer(self._libbpf.bpf_object__find_map_by_name(self._object, name.encode()), f"find map {name}")

    def _program(self, name: str) -> ctypes.c_void_p:
        found = self._libbpf.bpf_object__find_program_by_name(self._object, name.encode())
        return self._pointer(found, f"find program {name}")

    def initial_value(self, section: str, size: int) -> ctypes.Array[ctypes.c_ubyte]:
        """The memory of a data section (".rodata", ".bss", ".data") before load, to be written in place."""
        actual = ctypes.c_size_t()
        address = self._libbpf.bpf_map__initial_value(self._map(section), ctypes.byref(actual))
        if not address or actual.value < size:
            raise BpfError(f"section {section} has {actual.value} bytes, not the {size} expected", Cause.STALE)
        return (ctypes.c_ubyte * size).from_address(address)

    def resize(self, map_name: str, entries: int) -> None:
        """Set how many elements a map has. Call this before load()."""
        result = self._libbpf.bpf_map__set_max_entries(self._map(map_name), ctypes.c_uint32(entries))
        self._check(result, f"resize map {map_name}")

    def load(self) -> None:
        """Have the verifier check the programs, and load them."""
        with self._logging():
            self._check(self._libbpf.bpf_object__load(self._object), "load the BPF programs")

    def leave_out(self, program: str) -> None:
        """Leave a program out of load(), because the kernel may lack something that the program needs."""
        self._check(self._libbpf.bpf_program__set_autoload(self._program(program), False), f"leave out {program}")

    def attach(self, program: str) -> None:
        """Attach a tracing program where its section name says."""
        with self._logging():
            link = self._libbpf.bpf_program__attach(self._program(program))
            self._links.append(self._pointer(link, f"attach {program}"))

    def descriptor(self, program: str) -> int:
        """The file descriptor of a loaded program."""
        return int(self._libbpf.bpf_program__fd(self._program(program)))

    def ran_ns(self, program: str) -> int:
        """How many ns a loaded program has run while timing() was on."""
        info, length = ctypes.create_string_buffer(_RUN_TIME.size), ctypes.c_uint32(_RUN_TIME.size)
        result = self._libbpf.bpf_obj_get_info_by_fd(self.descriptor(program), info, ctypes.byref(length))
        self._check(result, f"ask how long {program} ran")
        return int(_RUN_TIME.unpack(info.raw)[0])

    def write(self, map_name: str, value: bytes, key: int = 0) -> None:
        """Replace an element of a map whose keys are 32-bit numbers."""
        handle = self._map(map_name)
        size = self._libbpf.bpf_map__value_size(handle)
        if len(value) != size:
            raise BpfError(f"map {map_name} has values of {size} bytes, not the {len(value)} expected", Cause.STALE)
        buffer = ctypes.create_string_buffer(value, size)
        result = self._libbpf.bpf_map_update_elem(
            self._libbpf.bpf_map__fd(handle), ctypes.byref(ctypes.c_uint32(key)), buffer, ctypes.c_uint64(0)
        )
        self._check(result, f"write map {map_name}")

    def read(self, map_name: str) -> bytes:
        """Element 0 of an array map, such as a data section."""
        handle = self._map(map_name)
        buffer = ctypes.create_string_buffer(self._libbpf.bpf_map__value_size(handle))
        result = self._libbpf.bpf_map_lookup_elem(
            self._libbpf.bpf_map__fd(handle), ctypes.byref(ctypes.c_uint32(0)), buffer
        )
        self._check(result, f"read map {map_name}")
        return buffer.raw

    def read_hash(self, map_name: str) -> dict[int, bytes]:
        """All elements of a hash map, by its 32-bit keys. An element that is added during the read may be missing."""
        handle = self._map(map_name)
        descriptor, size = self._libbpf.bpf_map__fd(handle), self._libbpf.bpf_map__value_size(handle)
        found, key, buffer = {}, ctypes.c_uint32(), ctypes.create_string_buffer(size)
        after = self._libbpf.bpf_map_get_next_key(descriptor, None, ctypes.byref(key))
        while after == 0:
            if self._libbpf.bpf_map_lookup_elem(descriptor, ctypes.byref(key), buffer) == 0:
                found[key.value] = buffer.raw
            after = self._libbpf.bpf_map_get_next_key(descriptor, ctypes.byref(key), ctypes.byref(key))
        return found

    def read_per_cpu(self, map_name: str) -> list[bytes]:
        """Element 0 of a per-CPU array map: one value for each possible CPU, padded to 8 bytes."""
        cpus, handle = self._libbpf.libbpf_num_possible_cpus(), self._map(map_name)
        size = -(-self._libbpf.bpf_map__value_size(handle) // 8) * 8
        key, buffer = ctypes.c_uint32(0), ctypes.create_string_buffer(size * cpus)
        descriptor = self._libbpf.bpf_map__fd(handle)
        result = self._libbpf.bpf_map_lookup_elem(descriptor, ctypes.byref(key), buffer)
        self._check(result, f"read map {map_name}")
        return [buffer.raw[start : start + size] for start in range(0, size * cpus, size)]

    def test_run(self, program: str, packet: bytes) -> int:
        """What a tc or XDP program returns for a packet (BPF_PROG_TEST_RUN)."""
        data = ctypes.create_string_buffer(packet, len(packet))
        options = _TestRunOptions(
            size=ctypes.sizeof(_TestRunOptions), data_in=ctypes.addressof(data), data_size_in=len(packet), repeat=1
        )
        descriptor = self._libbpf.bpf_program__fd(self._program(program))
        result = self._libbpf.bpf_prog_test_run_opts(descriptor, ctypes.byref(options))
        self._check(result, f"run {program}")
        return int(options.retval)

    @contextmanager
    def attached(self, program: str) -> Iterator[None]:
        """Attach a tracing program during the with block."""
        self.attach(program)
        link = self._links.pop()
        try:
            yield
        finally:
            self._libbpf.bpf_link__destroy(link)

    def detach(self) -> None:
        """Detach all tracing programs."""
        while self._links:
            self._libbpf.bpf_link__destroy(self._links.pop())

    def close(self) -> None:
        self.detach()
        if self._object:
            self._libbpf.bpf_object__close(self._object)
            self._object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def has_tracepoint(name: str) -> bool:
    """Whether the kernel has this tracepoint for programs with BTF (tp_btf)."""
    types = _kernel_types()
    return bool(
        types and _load_libbpf().btf__find_by_name_kind(types, f"btf_trace_{name}".encode(), BTF_KIND_TYPEDEF) > 0
    )


@cache
def _kernel_types() -> ctypes.c_void_p | None:
    """The kernel's BTF; None: the kernel has none. It is parsed only once, because that takes some 10 ms."""
    with _quiet(_load_libbpf()) as library:
        library.btf__load_vmlinux_btf.restype = ctypes.c_void_p
        found = library.btf__load_vmlinux_btf()
    return ctypes.c_void_p(found) if found else None


@contextmanager
def timing() -> Iterator[None]:
    """During the with block the kernel notes how long each BPF program runs, which costs some ns for each run.

    The kernel also stops when the caller's descriptor is closed. Raises BpfError without CAP_SYS_ADMIN.
    """
    descriptor = _load_libbpf().bpf_enable_stats(STATS_RUN_TIME)
    _expect(descriptor, "time BPF programs")
    try:
        yield
    finally:
        os.close(descriptor)


def _expect(result: int, what: str, *accepted: int) -> None:
    if result < 0 and result not in accepted:
        raise BpfError(f"cannot {what}: {os.strerror(-result)}", cause_of(-result, []))


@contextmanager
def _quiet(library: ctypes.CDLL) -> Iterator[ctypes.CDLL]:
    """Keep libbpf from writing the kernel's refusals to stderr during the with block: we raise exceptions instead."""
    library.libbpf_set_print.restype = ctypes.c_void_p
    before = library.libbpf_set_print(None)
    try:
        yield library
    finally:
        library.libbpf_set_print(ctypes.c_void_p(before))


def attach_egress(descriptor: int, ifindex: int, handle: int, note: Callable[[bool], None]) -> None:
    """Attach a tc program to a device's egress under this handle, in the network namespace of the calling thread.

    The program stays until detach_egress(), or as long as the device. note: called before the program is attached, with
    True if the clsact qdisc had to be made for it. Raises BpfError.
    """
    hook = _TcHook(ctypes.sizeof(_TcHook), ifindex, EGRESS, 0)
    options = _TcOptions(size=ctypes.sizeof(_TcOptions), prog_fd=descriptor, handle=handle, priority=FILTER_PRIORITY)
    with _quiet(_load_libbpf()) as library:
        created = library.bpf_tc_hook_create(ctypes.byref(hook))
        _expect(created, "create the clsact hook", THERE)
        note(created == 0)
        _expect(library.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options)), "attach to the device's egress")


def detach_egress(ifindex: int, handle: int, identity: int) -> None:
    """Remove the tc program of this handle and id from a device's egress, if it is there. Raises BpfError."""
    hook = _TcHook(ctypes.sizeof(_TcHook), ifindex, EGRESS, 0)
    options = _TcOptions(size=ctypes.sizeof(_TcOptions), handle=handle, priority=FILTER_PRIORITY)
    with _quiet(_load_libbpf()) as library:
        found = library.bpf_tc_query(ctypes.byref(hook), ctypes.byref(options))
        _expect(found, "ask for the programs at the device's egress", NOT_THERE, -errno.EINVAL)
        if found == 0 and options.prog_id == identity:
            options.prog_id = options.prog_fd = options.flags = 0  # bpf_tc_detach() refuses other values
            _expect(library.bpf_tc_detach(ctypes.byref(hook), ctypes.byref(options)), "remove a program from an egress")


def destroy_clsact(ifindex: int) -> None:
    """Remove a device's clsact qdisc with all filters, if it is there. Raises BpfError."""
    hook = _TcHook(ctypes.sizeof(_TcHook), ifindex, INGRESS | EGRESS, 0)
    with _quiet(_load_libbpf()) as library:
        _expect(library.bpf_tc_hook_destroy(ctypes.byref(hook)), "remove the clsact hook", NOT_THERE, -errno.EINVAL)


def program_id(descriptor: int) -> int:
    """The id that the kernel gave a loaded program: the second field of struct bpf_prog_info."""
    info, length = (ctypes.c_uint32 * 2)(), ctypes.c_uint32(8)
    result = _load_libbpf().bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(length))
    _expect(result, "ask for a program's id")
    return info[1]


def attach_xdp(descriptor: int, ifindex: int, flags: int) -> None:
    """Attach an XDP program to a device until detach_xdp(). Raises BpfError, also when the device has one already."""
    with _quiet(_load_libbpf()) as library:
        _expect(library.bpf_xdp_attach(ifindex, descriptor, flags | XDP_IF_NO_EXIST, None), "attach the XDP program")


def detach_xdp(ifindex: int, flags: int) -> None:
    """Remove the XDP program that a device has in this mode. Raises BpfError."""
    with _quiet(_load_libbpf()) as library:
        _expect(library.bpf_xdp_detach(ifindex, flags, None), "remove the XDP program")


def xdp_program_id(ifindex: int) -> int:
    """The id of the XDP program on a device; 0 when it has none. Raises BpfError."""
    found = ctypes.c_uint32()
    with _quiet(_load_libbpf()) as library:
        _expect(library.bpf_xdp_query_id(ifindex, 0, ctypes.byref(found)), "ask for the device's XDP program")
    return found.value
