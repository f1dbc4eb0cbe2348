"""The command fastsocket as a person and a program call it, on real binaries and real servers."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fastsocket import shared_memory
from fastsocket.build import HERE, LIBRARY
from fastsocket.counters import COUNTER_NAMES
from fastsocket.launch import LaunchError, Wishes, environment
from fastsocket.servers import Server, survey
from tests.harness.commands import FASTSOCKET, as_nobody, assert_one_line, fastsocket
from tests.harness.cpus import CPUS

ROOT = HERE.parent
NO_PID = 1 << 22  # past the kernel's PID_MAX_LIMIT

pytestmark = pytest.mark.timeout(60)


# ---- input


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["stauts"], ["stauts"]),
        (["run"], ["COMMAND"]),
        (["run", "--only", "0", "--", "true"], ["--only"]),
        (["run", "--only", "http", "--", "true"], ["--only"]),
        (["run", "--only", "65536", "--", "true"], ["--only", "1 to 65535"]),
        (["run", "--only", "80", "--only", "443", "--only", "80", "--", "true"], ["--only 80", "once"]),
        (
            ["run", *[word for port in range(17) for word in ("--only", str(80 + port))], "--", "true"],
            ["17 ports", "16"],
        ),
        (["run", "--fast", "--", "true"], ["--fast"]),
        (["check"], ["BINARY"]),
        (["check", "no-such-command"], ["no-such-command", "PATH"]),
        (["check", "/no/such/file"], ["/no/such/file", "No such file"]),
        (["check", "/usr"], ["/usr", "not a file"]),
        (["status", "nginx"], ["PID"]),
        (["status", "--watch", "0"], ["--watch"]),
        (["measure"], ["PID|NAME"]),
        (["measure", "no-such-server"], ["no-such-server", "ps -e"]),
        (["measure", str(NO_PID)], [f"no process {NO_PID}"]),
        (["measure", "1", "--seconds", "0"], ["--seconds"]),
        (["status", "--json", "--prometheus"], ["choose one"]),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments, words):
    assert_one_line(fastsocket(*arguments), 2, *words)


def test_names_that_are_no_text_for_a_terminal_are_spelled_out(tmp_path):
    name = "a\x1b[31m two\nlines \udcff \u202egnp.sh tab\t"
    (tmp_path / name).write_text("no program")
    for done, status in [
        (fastsocket("check", tmp_path / name), 1),
        (fastsocket("run", "--", tmp_path / name), 126),
        (fastsocket("check", name), 2),
        (fastsocket("run", "--", name), 127),
        (fastsocket("run", "--only", name, "--", "true"), 2),
        (fastsocket("nic", name, "rss"), 2),
        (fastsocket("status", name), 2),
        (fastsocket("measure", name), 2),
        (fastsocket(name), 2),
        (fastsocket(f"--{name}"), 2),
    ]:
        assert done.returncode == status, done.stderr
        assert name not in done.stdout + done.stderr and "Traceback" not in done.stderr
        assert all(line.isprintable() for line in (done.stdout + done.stderr).split("\n"))


def test_help_teaches_every_verb():
    shown = fastsocket("--help").stdout
    for verb in ("run", "check", "status", "measure", "path"):
        assert verb in shown
        assert f"fastsocket {verb}" in fastsocket(verb, "--help").stdout


def test_the_console_script_answers_from_anywhere():
    script = Path(sys.prefix) / "bin" / "fastsocket"
    assert subprocess.run([script, "path"], cwd="/", capture_output=True, text=True).stdout == f"{LIBRARY}\n"


def test_without_its_python_libraries_it_says_how_to_get_them():
    bare = [sys.executable, "-S", "-m", "fastsocket", "path"]  # no site-packages
    assert_one_line(subprocess.run(bare, cwd=ROOT, capture_output=True, text=True), 3, "typer", "pip install")


@pytest.mark.needs("gcc")
def test_without_the_library_every_verb_that_needs_it_says_how_to_build_it(tmp_path):
    shutil.copytree(HERE, tmp_path / "fastsocket", ignore=shutil.ignore_patterns("build"))
    for arguments in (["path"], ["run", "--", "true"], ["check", "true"]):
        done = subprocess.run([*FASTSOCKET, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert_one_line(done, 3, "make")
    subprocess.run(done.stderr.partition("not built: ")[2], shell=True, check=True, capture_output=True)
    assert (tmp_path / "fastsocket" / "build" / "libfsocket.so").exists()


@pytest.mark.needs("gcc")
@pytest.mark.parametrize("option", ["-m32", "-mx32"])
def test_a_32_bit_target_is_refused_in_one_sentence(tmp_path, option):
    if os.uname().machine != "x86_64":
        pytest.skip("needs a compiler that knows both")
    shutil.copytree(HERE, tmp_path / "fastsocket", ignore=shutil.ignore_patterns("build"))
    making = ["make", "-s", "-C", tmp_path / "fastsocket", f"CC=gcc {option}", "build/libfsocket.so"]
    done = subprocess.run(making, capture_output=True, text=True)
    assert done.returncode == 2 and "for 64-bit programs alone" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "fastsocket/build/libfsocket.so").exists()


CROSS, EMULATOR, ROOT_OF_ARM = "aarch64-linux-gnu-gcc", "qemu-aarch64", "/usr/aarch64-linux-gnu"
EMULATOR_LACKS_SO_COOKIE = (
    "libfsocket: the listener cannot be cloned (Invalid argument); the application runs without Fastsocket on this "
    "listener\n"
)
SAYS_WHERE_IT_LISTENS = """\
#include <stdio.h>
#include <netinet/in.h>
int main(void)
{
	struct sockaddr_in own = { .sin_family = AF_INET };
	socklen_t size = sizeof(own);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(fd, (struct sockaddr *)&own, size) || listen(fd, 5) || getsockname(fd, (struct sockaddr *)&own, &size))
		return 1;
	printf("%d\\n", own.sin_port != 0);
	return 0;
}
"""


def test_64_bit_arm(tmp_path, is_long):
    """It builds without a warning, loads, and a program with a listener ends as it should."""
    if not is_long or not shutil.which(CROSS) or not shutil.which(EMULATOR):
        pytest.skip("only with --long, and gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user")
    shutil.copytree(HERE, tmp_path / "fastsocket", ignore=shutil.ignore_patterns("build"))
    making = ["make", "-s", "-C", tmp_path / "fastsocket", f"CC={CROSS}", "build/libfsocket.so"]
    assert subprocess.run(making, capture_output=True, text=True, check=True).stderr == ""
    library, source, program = (tmp_path / name for name in ("fastsocket/build/libfsocket.so", "says.c", "says"))
    source.write_text(SAYS_WHERE_IT_LISTENS)
    subprocess.run([CROSS, "-o", program, source], check=True)
    emulated = [EMULATOR, "-L", ROOT_OF_ARM, "-E", f"LD_PRELOAD={library}", program]
    done = subprocess.run(emulated, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert done.stderr in ("", EMULATOR_LACKS_SO_COOKIE)


# ---- the environment that run composes

NAMES = st.text("abc/.", min_size=1, max_size=8)
PRELOADS = st.lists(st.tuples(NAMES | st.just(str(LIBRARY)), st.sampled_from([":", " ", "::", " :"])), max_size=4)
WISHES = st.builds(
    Wishes,
    listen_table=st.none() | st.booleans(),
    balance=st.none() | st.booleans(),
    fast_epoll=st.none() | st.booleans(),
    flow_deliver=st.none() | st.booleans(),
    answer_with_fin=st.none() | st.booleans(),
    delayed_ack=st.none() | st.booleans(),
    defer_accept=st.none() | st.booleans(),
    only=st.lists(st.integers(1, 65535), max_size=16).map(tuple),
    pin=st.none() | st.booleans(),
    strict=st.booleans(),
    verbose=st.booleans(),
)
OURS = [
    "FSOCKET",
    "FSOCKET_LISTEN_TABLE",
    "FSOCKET_BALANCE",
    "FSOCKET_FAST_EPOLL",
    "FSOCKET_FLOW_DELIVER",
    "FSOCKET_ANSWER_WITH_FIN",
    "FSOCKET_DELAYED_ACK",
    "FSOCKET_DEFER_ACCEPT",
    "FSOCKET_ONLY",
    "FSOCKET_PIN",
    "FSOCKET_STRICT",
    "FSOCKET_VERBOSE",
]
INHERITED = st.dictionaries(st.sampled_from(["HOME", "PATH", *OURS]), st.text("aeiou=", max_size=5))


@given(inherited=INHERITED, preloads=PRELOADS)
def test_the_library_is_preloaded_first_and_the_others_as_before(inherited, preloads):
    before = "".join(name + separator for name, separator in preloads)
    preloaded = environment(inherited | {"LD_PRELOAD": before}, LIBRARY, Wishes())["LD_PRELOAD"]
    assert preloaded.split(":") == [str(LIBRARY), *(name for name, _ in preloads if name != str(LIBRARY))]


@given(inherited=INHERITED, wishes=WISHES)
def test_a_variable_is_set_when_it_was_asked_for_and_else_left_alone(inherited, wishes):
    composed = environment(inherited, LIBRARY, wishes)
    asked = wishes.variables()
    assert set(asked) <= set(OURS)
    for name in {*composed, *inherited} - {"LD_PRELOAD"}:
        assert composed.get(name) == (asked[name] if name in asked else inherited.get(name))


@given(inherited=INHERITED, wishes=WISHES)
def test_running_under_run_is_running_under_the_inner_one(inherited, wishes):
    once = environment(inherited, LIBRARY, wishes)
    assert environment(once, LIBRARY, wishes) == once


def test_wishes_in_the_words_of_the_library():
    wishes = Wishes(
        listen_table=True,
        balance=True,
        fast_epoll=False,
        flow_deliver=True,
        answer_with_fin=True,
        delayed_ack=False,
        defer_accept=True,
        only=(80, 443),
        pin=False,
        strict=True,
        verbose=True,
    )
    assert environment({}, Path("/l.so"), wishes) == {
        "LD_PRELOAD": "/l.so",
        "FSOCKET_LISTEN_TABLE": "on",
        "FSOCKET_BALANCE": "on",
        "FSOCKET_FAST_EPOLL": "off",
        "FSOCKET_FLOW_DELIVER": "on",
        "FSOCKET_ANSWER_WITH_FIN": "on",
        "FSOCKET_DELAYED_ACK": "off",
        "FSOCKET_DEFER_ACCEPT": "on",
        "FSOCKET_ONLY": "80,443",
        "FSOCKET_PIN": "never",
        "FSOCKET_STRICT": "1",
        "FSOCKET_VERBOSE": "1",
    }


@pytest.mark.parametrize("pin, says", [(True, "always"), (False, "never"), (None, "what was there")])
def test_whether_to_pin_workers_is_said_in_the_words_of_the_library(pin, says):
    assert environment({"FSOCKET_PIN": "what was there"}, LIBRARY, Wishes(pin=pin))["FSOCKET_PIN"] == says


@pytest.mark.parametrize("directory", ["/two words", "/a:b"])
def test_a_library_that_the_loader_cannot_be_told_of_is_refused(directory):
    with pytest.raises(LaunchError, match="move it"):
        environment({}, Path(directory) / "libfsocket.so", Wishes())


# ---- run


def test_the_command_gets_the_environment_of_the_caller():
    """Python adds LC_CTYPE to its own where there is no locale."""
    done = fastsocket("run", "--no-pin", "--", "/usr/bin/env", env={"LC_CTYPE": "C", "A": "b c"})
    assert sorted(done.stdout.splitlines()) == ["A=b c", "FSOCKET_PIN=never", "LC_CTYPE=C", f"LD_PRELOAD={LIBRARY}"]


@pytest.mark.parametrize(
    "script, status", [("exit 7", 7), ("kill -PIPE $$", -signal.SIGPIPE), ("kill -TERM $$", -signal.SIGTERM)]
)
def test_exit_status_and_signals_are_the_commands_own(script, status):
    assert fastsocket("run", "--", "sh", "-c", script).returncode == status


@pytest.mark.parametrize("separator", [["--"], []])
def test_options_after_the_command_are_its_own(separator):
    done = fastsocket("run", *separator, "sh", "-c", "echo $0 $1", "--strict", "--")
    assert done.stdout == "--strict --\n"


def test_process_id_and_standard_input_are_the_commands_own():
    with subprocess.Popen(
        [*FASTSOCKET, "run", "--", "sh", "-c", "echo $$; cat"],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.communicate("to the command")[0] == f"{process.pid}\nto the command"


def test_a_command_that_does_not_exist_is_127():
    assert_one_line(fastsocket("run", "--", "no-such-command"), 127, "no-such-command")


def test_a_file_that_is_no_program_is_126(tmp_path):
    (tmp_path / "notes").write_text("buy milk\n")
    assert fastsocket("run", "--", tmp_path / "notes").returncode == 126


def status_of_env(command) -> int:
    """What env(1) ends with when it is to run the same."""
    return subprocess.run(["env", str(command)], capture_output=True, stdin=subprocess.DEVNULL, cwd=ROOT).returncode


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


THINGS = {
    "a directory": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a socket": a_socket,
    "nothing": lambda path: None,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a looping link": lambda path: path.symlink_to(path),
    "no program": lambda path: path.write_text("buy milk\n"),
    "an empty file": Path.touch,
    "a link to a program": lambda path: path.symlink_to("/bin/true"),
    "a link to a directory": lambda path: path.symlink_to("/"),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", THINGS.values(), ids=THINGS)
def test_what_is_run_in_vain_ends_as_with_env(tmp_path, make):
    """By its name with a slash, and in PATH."""
    make(tmp_path / "thing")
    path = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for name, environment_ in (str(tmp_path / "thing"), os.environ), ("thing", path):
        expected = subprocess.run(["env", name], capture_output=True, env=environment_, cwd=ROOT).returncode
        done = fastsocket("run", "--", name, env=environment_)
        assert done.returncode == expected, done.stderr
        assert "Traceback" not in done.stderr and all(map(str.isprintable, done.stderr.splitlines()))
        checked = fastsocket("check", name, env=environment_)
        assert checked.returncode in {0: [0], 126: [1, 2], 127: [2]}[expected]
        assert len(checked.stderr.splitlines()) <= 1 and "Traceback" not in checked.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/etc/passwd/x",
        "/" + "x" * 300,
        "x" * 300,
        "x/" * 3000,
        "/dev/null",
        "/proc/self/mem",
        "/proc/self/environ",
        "/sys/kernel/uevent_seqnum",
    ],
)
def test_names_that_lead_nowhere_end_as_with_env(name):
    done, checked = fastsocket("run", "--", name), fastsocket("check", name)
    assert done.returncode == status_of_env(name)
    assert checked.returncode in (1, 2, 3)
    assert "Traceback" not in done.stderr + checked.stderr


# ---- status


@pytest.fixture
def app(start):
    if len(CPUS) < 2:
        pytest.skip("a worker on each of two CPUs")
    return start()


def seen(app) -> Server:
    """The server as one look at all processes finds it, by its port."""
    (server,) = [server for server in survey().servers if app.port in [listener.port for listener in server.listeners]]
    return server


def adopters(server: Server) -> dict[int, list[shared_memory.Adopter]]:
    return {cpu.cpu: cpu.adopters for cpu in server.listeners[0].cpus}


def test_a_server_started_by_run_is_accelerated_and_shown(app):
    workers = [app.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS]
    for cpu in CPUS:
        app.request(cpu, 20)
    server, listener = seen(app), seen(app).listeners[0]
    assert (server.pid, server.processes) == (app.pid, sorted([app.pid, *workers]))
    assert (listener.address, listener.port, listener.creator, listener.why_not) == ("127.0.0.1", app.port, app.pid, "")
    assert adopters(server) == {cpu: [shared_memory.Adopter(pid, pid)] for cpu, pid in zip(CPUS, workers)}
    assert all(cpu.listening and cpu.tended_ms_ago < 10_000 for cpu in listener.cpus)
    assert [server.counters[cpu].accepted_local for cpu in CPUS] == [20, 20]


def test_threads_are_shown_as_such(app):
    for cpu in CPUS:
        app.ask("thread", str(cpu), cpu)
    for (adopter,) in adopters(seen(app)).values():
        assert adopter.process == app.pid
        assert adopter.thread in map(int, os.listdir(f"/proc/{app.pid}/task"))


def test_a_killed_worker_is_shown_no_longer(app):
    victim, other = [app.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS]
    os.kill(victim, signal.SIGKILL)
    app.ask("reap", str(CPUS[0]))
    server = seen(app)
    assert server.processes == sorted([app.pid, other])
    assert victim not in [adopter.process for those in adopters(server).values() for adopter in those]


@pytest.mark.privileged
def test_processes_of_a_container_are_shown_with_the_ids_that_we_know_them_by(start):
    app = start(launcher=["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
    worker = app.ask("fork", "a", CPUS[0])
    server = seen(app)
    assert app.pid == 1 and worker["pid"] not in server.processes
    ((adopter,),) = adopters(server).values()
    assert adopter.process in server.processes and adopter.process != server.pid
    assert server.listeners[0].creator == server.pid


def test_two_servers_are_two(start):
    first, second = start(), start()
    assert seen(first).processes == [first.pid]
    assert seen(second).processes == [second.pid]


def test_a_listener_that_is_closed_is_shown_no_longer(app):
    app.ask("close")
    (server,) = survey().of([app.pid])
    assert server.listeners == []


@pytest.mark.parametrize("option", [["--only", "1"], ["--no-listen-table", "--fast-epoll"]])
def test_status_says_why_a_server_is_not_accelerated(start, option):
    app = start(*option)
    app.ask("fork", "a", CPUS[0])
    (listener,) = seen(app).listeners
    assert listener.why_not and listener.why_not in fastsocket("status", app.pid).stdout


def test_status_in_tables(app):
    workers = [app.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS]
    app.request(CPUS[0], 5)
    done = fastsocket("status", workers[0])
    assert (done.returncode, done.stderr) == (0, "")
    assert f"process {app.pid} and {len(CPUS)} more" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    for cpu, worker in zip(CPUS, workers):
        assert [str(cpu), str(worker)] in [row[:2] for row in rows]
    assert [str(CPUS[0]), "5", "0", "0", "1"] in [row[:5] for row in rows]


def test_status_for_programs(app):
    app.ask("fork", "a", CPUS[0])
    (server,) = json.loads(fastsocket("status", "--json", app.pid).stdout)
    assert set(server) == {"pid", "command", "processes", "listeners", "counters"}
    (listener,) = server["listeners"]
    assert set(listener) == {"address", "port", "creator", "why_not", "balance", "cpus"}
    assert set(listener["cpus"][0]) == {"cpu", "listening", "adopters", "tended_ms_ago"}
    assert set(server["counters"][0]) == {"cpu", *COUNTER_NAMES}


def test_status_for_prometheus(start):
    apps = [start(), start()]
    for app in apps:
        app.ask("fork", "a", CPUS[0])
        app.request(CPUS[0], 3)
    shown = fastsocket("status", "--prometheus", *(app.pid for app in apps)).stdout
    families = list(text_string_to_metric_families(shown))
    assert all(family.documentation for family in families)
    assert {family.name: family.type for family in families}["fastsocket_fallen_back"] == "gauge", "it can fall"
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }
    assert len(samples) == sum(len(family.samples) for family in families), "no two have the same labels"
    for app in apps:
        pid, cpu, address = ("pid", str(app.pid)), ("cpu", str(CPUS[0])), ("address", f"127.0.0.1:{app.port}")
        assert samples["fastsocket_accepted_total", cpu, ("listener", "local"), pid] == 3
        assert samples["fastsocket_adopters", address, cpu, pid] == 1
        assert samples["fastsocket_accelerated", address, pid] == 1
        assert samples["fastsocket_processes", ("command", seen(app).command), pid] == 2


@pytest.mark.privileged
def test_a_machine_without_servers_is_no_error():
    """Others may run servers here: a PID namespace of our own has none."""
    alone = ["unshare", "--pid", "--fork", "--mount-proc", *FASTSOCKET, "status"]
    done = subprocess.run(alone, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "no server runs with libfsocket.so\n")
    assert json.loads(subprocess.run([*alone, "--json"], cwd=ROOT, capture_output=True, text=True).stdout) == []


@pytest.mark.parametrize(
    "pid, word", [(NO_PID, "has ended"), (os.getpid(), "without libfsocket.so")], ids=["ended", "ours"]
)
def test_a_process_that_is_no_server_is_status_1_and_a_reason(pid, word):
    assert_one_line(fastsocket("status", pid), 1, str(pid), word)


def test_a_process_that_has_ended_is_no_error_beside_a_server(app):
    done = fastsocket("status", NO_PID, app.pid)
    assert (done.returncode, done.stderr) == (0, "")


def test_processes_that_end_while_we_look_are_no_error(app):
    app.ask("fork", "a", CPUS[0])
    churn = subprocess.Popen(["sh", "-c", "while :; do /bin/true; done"])
    try:
        for _ in range(20):
            assert seen(app).pid == app.pid
    finally:
        churn.kill()
        churn.wait()


@pytest.mark.privileged
def test_who_is_not_root_is_told_how_many_processes_stay_hidden_and_the_remedy(app):
    shown, (remark,) = as_nobody(lambda: [[server.pid for server in survey().servers], survey().remarks()])
    assert app.pid not in shown
    assert "could not be looked into" in remark and "sudo" in remark


def test_watching_goes_on_until_ctrl_c(app):
    app.ask("fork", "a", CPUS[0])
    with subprocess.Popen(
        [*FASTSOCKET, "status", "--watch", "0.1", str(app.pid)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        headings = 0
        while headings < 3:
            headings += f"process {app.pid}" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.communicate()[1] == ""
    assert watching.returncode == 0
