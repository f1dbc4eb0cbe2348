"""The page of a server, read from outside: as C has it, and as somebody who wants to harm its reader would make it."""

import ctypes
import json
import mmap
import os
import resource
import signal
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from ctypes import Structure
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsocket import budget, shared_memory
from fastsocket.build import HERE
from fastsocket.servers import absence, survey
from fastsocket.steering.cpus import machine_cpus
from tests.harness.commands import NOBODY, as_nobody, fastsocket

pytestmark = pytest.mark.timeout(60)

LAYOUT = {
    "struct shared_memory": shared_memory.Header,
    "struct cpu_counters": shared_memory.CountersLine,
    "struct seat": shared_memory.SeatLine,
    "struct shared_listener": shared_memory.ListenerHead,
}
PLACES = {
    "offsetof(struct shared_memory, cpu)": shared_memory.COUNTERS_OFFSET,
    "sizeof(struct cpu_counters)": shared_memory.COUNTERS_STRIDE,
    "offsetof(struct shared_memory, listener)": shared_memory.LISTENERS_OFFSET,
    "sizeof(struct shared_listener)": shared_memory.LISTENERS_STRIDE,
    "offsetof(struct shared_listener, seat)": shared_memory.SEATS_OFFSET,
    "sizeof(struct seat)": shared_memory.SEATS_STRIDE,
    "sizeof(struct shared_memory)": shared_memory.MEMORY_BYTES,
    "FSOCKET_SHARED_VERSION": shared_memory.VERSION,
    "CPU_SETSIZE": shared_memory.MAX_CPUS,
    "MAX_LISTENERS": shared_memory.MAX_LISTENERS,
    "MAX_ADOPTERS": shared_memory.MAX_ADOPTERS,
}


def fields_of(mirror: type[Structure]) -> dict[str, tuple[int, int]]:
    return {name: (getattr(mirror, name).offset, getattr(mirror, name).size) for name, _ in mirror._fields_}


@pytest.mark.needs("gcc")
def test_python_and_c_agree_on_the_page(tmp_path):
    in_python = {
        f"offsetof({struct}, {field})": offset
        for struct, mirror in LAYOUT.items()
        for field, (offset, _) in fields_of(mirror).items()
    }
    in_python |= {
        f"sizeof((({struct} *)0)->{field})": size
        for struct, mirror in LAYOUT.items()
        for field, (_, size) in fields_of(mirror).items()
    }
    questions = [f'printf("%ld\\n", (long)({question}));\n' for question in (in_python | PLACES)]
    (tmp_path / "layout.c").write_text(
        '#define _GNU_SOURCE\n#include <stddef.h>\n#include <stdio.h>\n#include "shared.h"\nint main(void) {\n'
        + "".join(questions)
        + "puts(FSOCKET_SHARED_MAGIC); puts(FSOCKET_SHARED_NAME); return 0; }\n"
    )
    subprocess.run(["gcc", "-I", HERE / "libfsocket", "-o", "layout", "layout.c"], cwd=tmp_path, check=True)
    answers = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True).stdout.splitlines()
    *numbers, magic, name = answers
    assert dict(zip(in_python | PLACES, map(int, numbers), strict=True)) == in_python | PLACES
    assert (magic, f"/memfd:{name} (deleted)") == (shared_memory.MAGIC.decode(), shared_memory.MAPPING)


def honest_header(**other) -> bytes:
    """How a page begins whose geometry is that of the version, but for what is named here."""
    return bytes(
        shared_memory.Header(
            **{"magic": shared_memory.MAGIC, "version": shared_memory.VERSION, "cpus": machine_cpus()}
            | shared_memory.GEOMETRY
            | other
        )
    )


@contextmanager
def mapped(content: bytes, size: int = shared_memory.MEMORY_BYTES):
    """This process maps something under the library's name."""
    with ExitStack() as stack:
        memory = os.memfd_create("fsocket")
        stack.callback(os.close, memory)
        os.truncate(memory, size)
        os.pwrite(memory, content, 0)
        yield stack.enter_context(mmap.mmap(memory, size))


def full_of(number: int) -> bytes:
    """A page each of whose places is taken, and names this process or thread wherever it can."""
    seat = bytes(shared_memory.SeatLine((number << 32 | number,) * shared_memory.MAX_ADOPTERS, 1, 1)).ljust(
        shared_memory.SEATS_STRIDE, b"\1"
    )
    head = bytes(shared_memory.ListenerHead(1, number, 1, (2, 0, *[255] * 126), b"\x1b[31m" + b"w" * 100))
    place = head.ljust(shared_memory.SEATS_OFFSET, b"\1") + seat * shared_memory.MAX_CPUS
    return (
        honest_header(cpus=shared_memory.MAX_CPUS).ljust(shared_memory.LISTENERS_OFFSET, b"\xff")
        + place * shared_memory.MAX_LISTENERS
    )


@settings(max_examples=100, deadline=None)
@given(
    cpus=st.integers(0, shared_memory.MAX_CPUS),
    rest=st.binary(max_size=4096),
    at=st.integers(0, shared_memory.LISTENERS_OFFSET + 4096),
)
def test_what_anybody_maps_under_our_name_does_no_harm(cpus, rest, at):
    """A user may, to be seen by root: a page that is honest about nothing but its geometry."""
    header = honest_header(cpus=cpus)
    with mapped(header + bytes(at) + rest), shared_memory.SharedMemory(os.getpid()) as read:
        assert len(read.counters()) == min(cpus, machine_cpus())
        for listener in read.listeners():
            assert listener.why_not.isprintable() and len(str(listener)) < 80 and len(listener.why_not) < 1200
            assert {cpu.cpu for cpu in listener.cpus} <= set(range(machine_cpus()))


@pytest.mark.parametrize(
    "name, value",
    [
        ("version", shared_memory.VERSION + 1),
        ("magic", b"FSOCKET!"),
        ("cpus", shared_memory.MAX_CPUS + 1),
        *((name, value) for name in shared_memory.GEOMETRY for value in (0, 1 << 31)),
    ],
)
def test_a_page_of_any_other_geometry_is_refused(name, value):
    with mapped(honest_header(**{name: value})), pytest.raises(shared_memory.OtherVersion, match=str(os.getpid())):
        shared_memory.SharedMemory(os.getpid())


@pytest.mark.privileged
@pytest.mark.parametrize("size", [4096, shared_memory.MEMORY_BYTES - 1, shared_memory.MEMORY_BYTES + 4096, 1 << 40])
def test_a_page_of_any_other_size_is_refused(size):
    """Through another process's memory, as others than root must, it is not seen."""
    with mapped(honest_header(), size), pytest.raises(shared_memory.OtherVersion, match=str(size)):
        shared_memory.SharedMemory(os.getpid())


@pytest.mark.privileged
def test_a_page_that_is_cut_while_it_is_read_has_ended():
    with mapped(honest_header()) as memory, shared_memory.SharedMemory(os.getpid()) as read:
        memory.resize(4096)
        with pytest.raises(ProcessLookupError):
            list(read.listeners())


@contextmanager
def pretending(*pretend):
    """A process for each of these functions, which get a pipe to write to when they are ready; their numbers."""
    with ExitStack() as stack:
        pids = []
        for function in pretend:
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                with suppress(BaseException):
                    os.close(reading)
                    function(writing)
                os._exit(1)
            os.close(writing)
            stack.callback(os.waitpid, child, 0)
            stack.callback(os.kill, child, signal.SIGKILL)
            with open(reading, "rb") as ready:
                assert ready.read(1) == b"."
            pids.append(child)
        yield pids


def impostors(count: int):
    """Processes of nobody that are as costly to look at as the page lets them be."""
    return pretending(*[_pretend] * count)


def _pretend(ready: int) -> None:
    os.setgroups([])
    os.setresuid(NOBODY, NOBODY, NOBODY)
    with mapped(full_of(os.getpid())):
        os.write(ready, b".")
        signal.pause()


@pytest.mark.privileged
def test_a_file_of_the_same_name_is_no_page(tmp_path):
    """It can be of FUSE, whose owner lets a reader wait. On a mount that is nowhere a file has any name."""

    def name_a_file(ready: int) -> None:
        assert ctypes.CDLL(None).unshare(0x00020000) == 0  # CLONE_NEWNS
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
        with open(tmp_path / "memfd:fsocket", "wb+") as file:
            file.write(full_of(os.getpid()))
            file.flush()
            with mmap.mmap(file.fileno(), 0):
                os.unlink(tmp_path / "memfd:fsocket")
                subprocess.run(["umount", "--lazy", tmp_path], check=True)
                os.write(ready, b".")
                signal.pause()

    with pretending(name_a_file) as (pid,):
        mappings = Path(f"/proc/{pid}/maps").read_text().splitlines()
        (line,) = [line for line in mappings if line.endswith(f" {shared_memory.MAPPING}")]
        with pytest.raises(shared_memory.NotPreloaded, match=r"without libfsocket\.so"):
            shared_memory.mapping_of(pid)
        put_there_since = shared_memory.Mapping(line.split()[0], int(line.split()[4]))
        with pytest.raises(shared_memory.OtherVersion, match="something else"):
            shared_memory.SharedMemory(pid, put_there_since)


@pytest.mark.privileged
@pytest.mark.parametrize("count", [1, 30])
def test_root_is_told_little_of_what_a_user_made_up_and_soon(count, start):
    honest = start()
    with impostors(count):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = fastsocket("status", "--json")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime < 4
    assert len(done.stdout) < 1 << 20 and all(map(str.isprintable, done.stdout.splitlines()))
    assert len(done.stderr.splitlines()) <= 3
    assert ("of nobody" in done.stderr) == (count > 1)
    ports = [listener["port"] for server in json.loads(done.stdout) for listener in server["listeners"]]
    assert honest.port in ports


@pytest.mark.privileged
def test_a_process_that_was_left_out_is_told_so_when_it_is_named(monkeypatch):
    monkeypatch.setattr(budget, "SECONDS_OF_A_USER", 0)
    with impostors(1) as (pid,):
        reason = absence(pid, survey())
    assert reason.exit_status == 3 and f"process {pid} was left out" in str(reason)


@pytest.mark.privileged
def test_who_is_not_root_reads_the_page_of_a_process_of_his_own():
    def read():
        ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE, which changing the user has taken away
        with mapped(full_of(os.getpid())), shared_memory.SharedMemory(os.getpid()) as found:
            return [len(list(found.listeners())), len(found.counters())]

    assert as_nobody(read) == [shared_memory.MAX_LISTENERS, machine_cpus()]


@pytest.mark.privileged
def test_servers_of_another_version_are_one_line(start):
    with ExitStack() as stack:
        pages = [stack.enter_context(mapped(honest_header(version=shared_memory.VERSION + 1))) for _ in range(2)]
        done = fastsocket("status")
        assert len(pages) == 2 and str(os.getpid()) in done.stderr
        assert sum("another version" in line for line in done.stderr.splitlines()) == 1
