"""What surrounds servers in production: filters of system calls, chroot, other users, socket activation, io_uring."""

import os
import platform
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fastsocket import shared_memory
from fastsocket.build import LIBRARY
from tests.harness.apps import APPS, LOOPBACK, SANITIZED, Server, answer, compiled, pids, preloading
from tests.harness.commands import NOBODY
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.waiting import wait_until
from tests.libfsocket_apps.loopback import connect, on_cpus
from workloads.process import running
from workloads.readiness import listening_inodes

X86_64 = {"bpf": 321, "memfd_create": 319, "pidfd_open": 434, "pidfd_getfd": 438}
IO_URING_DISABLED = Path("/proc/sys/kernel/io_uring_disabled")

pytestmark = [pytest.mark.timeout(60), NEEDS_TWO_CPUS]


@pytest.fixture(scope="module", params=["plain", SANITIZED])
def preload(request) -> dict[str, str]:
    return preloading(request.param)


def assert_two_workers_are_local(server: Server) -> None:
    workers = [server.ask("fork", str(cpu), cpu) for cpu in CPUS]
    for cpu, worker in zip(CPUS, workers):
        assert pids(server.request(cpu, 20)) == {worker["pid"]}
    assert server.per_cpu("accepted_local") == [20, 20]


def forbidding(action: str, *calls: str) -> list[str]:
    """The launcher of a program that may not make these system calls."""
    return [sys.executable, str(APPS / "forbidding.py"), action, ",".join(str(X86_64[call]) for call in calls)]


only_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls have other numbers")


@only_x86_64
def test_a_process_that_dies_of_bpf_is_accelerated(preload):
    """The library makes no bpf() call: its filters are classic BPF, by setsockopt()."""
    with Server(preload, launcher=forbidding("kill", "bpf")) as server:
        server.listen()
        assert_two_workers_are_local(server)


@only_x86_64
def test_a_process_that_may_not_look_into_others_is_accelerated(preload):
    with Server(preload, launcher=forbidding("refuse", "pidfd_open", "pidfd_getfd")) as server:
        server.listen()
        assert_two_workers_are_local(server)


@only_x86_64
def test_a_process_that_may_not_share_memory_runs_as_without_the_library(preload):
    with Server(preload, log="libfsocket: ", launcher=forbidding("refuse", "memfd_create")) as server:
        server.listen()
        for cpu in CPUS:
            server.ask("fork", str(cpu), cpu)
        assert all(len(server.request(cpu, 20)) == 20 for cpu in CPUS)
        with pytest.raises(shared_memory.NotPreloaded):
            shared_memory.counters(server.pid)


@pytest.mark.privileged
@pytest.mark.parametrize("when", ["before listen", "after listen"])
def test_a_server_in_an_empty_root_is_accelerated(preload, tmp_path, when):
    """No /proc, no /sys, no /dev."""
    with Server(preload) as server:
        if when == "before listen":
            assert server.ask("change_root", str(tmp_path)) == []
        server.listen()
        if when == "after listen":
            assert server.ask("change_root", str(tmp_path)) == []
        assert_two_workers_are_local(server)


@pytest.mark.privileged
def test_a_server_in_an_empty_root_and_on_a_single_cpu_counts_there(preload, tmp_path):
    """Without /sys, libc takes the CPUs that the process may use for all there are."""
    with Server(preload, launcher=["taskset", "--cpu-list", str(CPUS[1])]) as server:
        server.ask("change_root", str(tmp_path))
        server.listen()
        server.ask("serve")
        server.request(CPUS[1], 10)
        assert server.per_cpu("accepted_local") == [0, 10]


@pytest.mark.privileged
def test_on_a_machine_with_one_cpu_there_are_no_clones(preload, tmp_path):
    (tmp_path / "possible").write_text("0\n")
    shown = f'mount --bind {tmp_path}/possible /sys/devices/system/cpu/possible && exec "$@"'
    with Server(preload, launcher=["unshare", "--mount", "sh", "-c", shown, "sh"]) as server:
        server.listen()
        worker = server.ask("fork", "a", CPUS[0])
        assert pids(server.request(CPUS[0], 10)) == {worker["pid"]}
        assert server.total("adopted") == 0
        with shared_memory.SharedMemory(server.pid) as memory:
            assert [listener.why_not for listener in memory.listeners()] == ["this machine has one CPU"]


@pytest.mark.privileged
def test_workers_that_drop_privileges_keep_their_listeners(preload):
    with Server(preload) as server:
        server.listen()
        workers = [server.ask("fork", str(cpu), cpu) for cpu in CPUS]
        for cpu, worker in zip(CPUS, workers):
            assert server.ask("tell", str(cpu), "drop_privileges", NOBODY) == NOBODY
            assert pids(server.request(cpu, 20)) == {worker["pid"]}
        assert server.per_cpu("accepted_local") == [20, 20]


@pytest.mark.privileged
def test_workers_that_drop_privileges_before_they_watch_get_their_listeners(preload):
    """Clones are bound by the master: a process of another user could not bind to its port any more."""
    with Server(preload) as server:
        server.listen()
        workers = [server.ask("fork", str(cpu), cpu, False, NOBODY) for cpu in CPUS]
        assert {worker["user"] for worker in workers} == {NOBODY}
        for cpu, worker in zip(CPUS, workers):
            assert pids(server.request(cpu, 20)) == {worker["pid"]}
        assert server.per_cpu("accepted_local") == [20, 20]


@pytest.mark.privileged
def test_a_server_that_was_never_root_is_accelerated():
    """Debian's Python and a copy of the library, because nobody may read what is root's."""
    with TemporaryDirectory() as readable:
        os.chmod(readable, 0o755)
        for path in (LIBRARY, *APPS.glob("*.py")):
            shutil.copy(path, readable)
        launcher = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        with Server(
            {"LD_PRELOAD": f"{readable}/{LIBRARY.name}"},
            launcher=[*launcher, "/usr/bin/python3"],
            program=[f"{readable}/server.py"],
        ) as server:
            server.listen()
            assert os.stat(f"/proc/{server.pid}").st_uid == NOBODY
            assert_two_workers_are_local(server)


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed")
def test_a_server_that_systemd_gives_its_listener_is_accelerated(preload):
    """It is started by the first connection, with the listener as descriptor 3 (sd_listen_fds(3))."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        port = probe.getsockname()[1]
    passed = [option for name, value in preload.items() for option in ("-E", f"{name}={value}")]
    launcher = ["systemd-socket-activate", "-l", f"{LOOPBACK}:{port}", *passed]
    with Server({}, log=None, launcher=launcher, program=[sys.executable, str(APPS / "server.py"), "3"]) as server:
        wait_until(lambda: bool(listening_inodes(port)), "systemd listens")
        with on_cpus({CPUS[0]}):
            first = connect((LOOPBACK, port))
        server.know(server.read())
        server.ask("block", False)
        workers = [server.ask("fork", str(cpu), cpu) for cpu in CPUS]
        assert answer(first)["pid"] in {worker["pid"] for worker in workers}
        for cpu, worker in zip(CPUS, workers):
            assert pids(server.request(cpu, 20)) == {worker["pid"]}
        assert server.per_cpu("accepted_local") == [20, 20]


@pytest.mark.skipif(
    not IO_URING_DISABLED.exists() or IO_URING_DISABLED.read_text().strip() != "0",
    reason="this kernel has no io_uring, or forbids it",
)
def test_a_server_that_accepts_by_io_uring_is_left_alone(tmp_path, preload):
    program = compiled("uring.c", tmp_path)
    with running([program, str(20 * len(CPUS))], stdout=subprocess.PIPE, text=True, env=os.environ | preload) as server:
        address = (LOOPBACK, int(server.stdout.readline()))
        for cpu in CPUS:
            for _ in range(20):
                with on_cpus({cpu}), connect(address) as connection, connection.makefile() as reader:
                    assert reader.read() == "ok"
        assert server.wait(10) == 0
        server.stdout.close()


@pytest.fixture(scope="module")
def counting(tmp_path_factory) -> Path:
    return compiled("counting.c", tmp_path_factory.mktemp("counting"), "-shared", "-fPIC")


@pytest.mark.parametrize("is_first", [True, False], ids=["before ours", "behind ours"])
def test_another_preloaded_library_sees_the_calls_too(counting, is_first):
    order = [str(counting), str(LIBRARY)] if is_first else [str(LIBRARY), str(counting)]
    with Server({"LD_PRELOAD": ":".join(order)}) as server:
        server.listen()
        workers = [server.ask("fork", str(cpu), cpu) for cpu in CPUS]
        for cpu, worker in zip(CPUS, workers):
            assert pids(server.request(cpu, 20)) == {worker["pid"]}
            accepts, waits, closes = server.ask("tell", str(cpu), "counted")
            assert accepts >= 20 and waits >= 1 and closes >= 20
        assert server.per_cpu("accepted_local") == [20, 20]


def test_an_epoll_within_an_epoll_is_woken_for_its_clone(preload):
    with Server(preload) as server:
        server.listen()
        workers = [server.ask("fork", str(cpu), cpu) for cpu in CPUS]
        for cpu, worker in zip(CPUS, workers):
            server.ask("tell", str(cpu), "nest")
            assert pids(server.request(cpu, 20)) == {worker["pid"]}
        assert server.per_cpu("accepted_local") == [20, 20]


@pytest.mark.privileged
def test_a_cpu_that_goes_offline_takes_no_connection_along(preload, is_long):
    online = Path(f"/sys/devices/system/cpu/cpu{CPUS[1]}/online")
    if not is_long or not os.access(online, os.W_OK):
        pytest.skip("takes a CPU of the machine off for a moment: only with --long, and where that can be done")
    with Server(preload) as server, ExitStack() as back:
        server.listen()
        for cpu in CPUS:
            server.ask("fork", str(cpu), cpu, True)
        waiting = server.connect(CPUS[1], 10)
        back.callback(online.write_text, "1")
        online.write_text("0")
        for cpu in CPUS:
            server.ask("tell", str(cpu), "go")
        assert len([answer(connection) for connection in waiting]) == 10
        assert len(server.request(CPUS[0], 20)) == 20
        back.close()
        assert len(server.request(CPUS[1], 20)) == 20


def test_a_worker_that_has_to_run_elsewhere_takes_no_connection_along(preload):
    """What the kernel does with threads of a CPU that goes offline, without taking one off."""
    with Server(preload) as server:
        server.listen()
        for cpu in CPUS:
            server.ask("fork", str(cpu), cpu, True)
        waiting = server.connect(CPUS[1], 10)
        server.ask("tell", str(CPUS[1]), "pin", CPUS[0])
        for cpu in CPUS:
            server.ask("tell", str(cpu), "go")
        assert len([answer(connection) for connection in waiting]) == 10
        assert len(server.request(CPUS[0], 20)) == 20
