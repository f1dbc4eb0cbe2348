"""The command fastsocket as a person and a program call it, on real binaries and real servers."""

import ctypes
import json
import mmap
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from ctypes import Structure
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fastsocket import budget, env, page
from fastsocket.binary import check, find
from fastsocket.build import HERE, LIBRARY
from fastsocket.launch import LaunchError, Wishes, environment
from fastsocket.printable import printable
from fastsocket.servers import Server, absence, survey
from fastsocket.steering.cpus import machine_cpus
from tests.needs import need
from tests.test_libfsocket import CPUS, Server as ServerApp

ROOT = HERE.parent
FASTSOCKET = [sys.executable, "-m", "fastsocket"]
NOBODY = 65534
MAPS = "/proc/self/maps"  # what a program that prints it has loaded
NO_PID = 1 << 22  # past the kernel's PID_MAX_LIMIT

pytestmark = pytest.mark.timeout(60)


def fastsocket(*arguments, **options):
    return subprocess.run([*FASTSOCKET, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT,
                          stdin=subprocess.DEVNULL, **options)


def assert_one_line(done, status, *words):
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def as_nobody(function):
    """What a function says when a process that is not root calls it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os.setgroups([])
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writing, json.dumps(function()).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said)


# ---- input


@pytest.mark.parametrize("arguments, words", [
    (["stauts"], ["stauts"]),
    (["run"], ["COMMAND"]),
    (["run", "--only", "0", "--", "true"], ["--only"]),
    (["run", "--only", "http", "--", "true"], ["--only"]),
    (["run", "--only", "65536", "--", "true"], ["--only", "1 to 65535"]),
    (["run", "--only", "80", "--only", "443", "--only", "80", "--", "true"], ["--only 80", "once"]),
    (["run", *[word for port in range(17) for word in ("--only", str(80 + port))], "--", "true"], ["17 ports", "16"]),
    (["run", "--fast", "--", "true"], ["--fast"]),
    (["check"], ["BINARY"]),
    (["check", "no-such-command"], ["no-such-command", "PATH"]),
    (["check", "/no/such/file"], ["/no/such/file", "No such file"]),
    (["check", "/usr"], ["/usr", "not a file"]),
    (["status", "nginx"], ["PID"]),
    (["status", "--watch", "0"], ["--watch"]),
    (["status", "--json", "--prometheus"], ["choose one"]),
])
def test_bad_input_gets_one_line_and_status_2(arguments, words):
    assert_one_line(fastsocket(*arguments), 2, *words)


@pytest.mark.parametrize("name", ["a\x1b[31m", "two\nlines", "\udcff", "\u202egnp.sh", "tab\t"])
def test_names_that_are_no_text_for_a_terminal_are_spelled_out(tmp_path, name):
    (tmp_path / name).write_text("no program")
    for done, status in [(fastsocket("check", tmp_path / name), 1), (fastsocket("run", "--", tmp_path / name), 126),
                         (fastsocket("check", name), 2), (fastsocket("run", "--", name), 127),
                         (fastsocket("run", "--only", name, "--", "true"), 2), (fastsocket("nic", name, "rss"), 2),
                         (fastsocket("status", name), 2), (fastsocket(name), 2), (fastsocket(f"--{name}"), 2)]:
        assert done.returncode == status, done.stderr
        assert name not in done.stdout + done.stderr and "Traceback" not in done.stderr
        assert all(line.isprintable() for line in (done.stdout + done.stderr).split("\n"))


def test_help_teaches_every_verb():
    shown = fastsocket("--help").stdout
    for verb in ("run", "check", "status", "path"):
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


# ---- the environment that run composes

NAMES = st.text("abc/.", min_size=1, max_size=8)
PRELOADS = st.lists(st.tuples(NAMES | st.just(str(LIBRARY)), st.sampled_from([":", " ", "::", " :"])), max_size=4)
WISHES = st.builds(Wishes, listen_table=st.none() | st.booleans(), fast_epoll=st.none() | st.booleans(),
                   flow_deliver=st.none() | st.booleans(),
                   only=st.lists(st.integers(1, 65535), max_size=16).map(tuple), pin=st.none() | st.booleans(),
                   strict=st.booleans(), verbose=st.booleans())
OURS = ["FSOCKET", "FSOCKET_LISTEN_TABLE", "FSOCKET_FAST_EPOLL", "FSOCKET_FLOW_DELIVER", "FSOCKET_ONLY", "FSOCKET_PIN",
        "FSOCKET_STRICT", "FSOCKET_VERBOSE"]
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
    wishes = Wishes(listen_table=True, fast_epoll=False, flow_deliver=True, only=(80, 443), pin=False, strict=True, verbose=True)
    assert environment({}, Path("/l.so"), wishes) == {
        "LD_PRELOAD": "/l.so", "FSOCKET_LISTEN_TABLE": "on", "FSOCKET_FAST_EPOLL": "off",
        "FSOCKET_FLOW_DELIVER": "on", "FSOCKET_ONLY": "80,443", "FSOCKET_PIN": "never", "FSOCKET_STRICT": "1", "FSOCKET_VERBOSE": "1"}


@pytest.mark.parametrize("directory", ["/two words", "/a:b"])
def test_a_library_that_the_loader_cannot_be_told_of_is_refused(directory):
    with pytest.raises(LaunchError, match="move it"):
        environment({}, Path(directory) / "libfsocket.so", Wishes())


# ---- run


def test_the_command_gets_the_environment_of_the_caller():
    """Python adds LC_CTYPE to its own where there is no locale."""
    done = fastsocket("run", "--no-pin", "--", "/usr/bin/env", env={"LC_CTYPE": "C", "A": "b c"})
    assert sorted(done.stdout.splitlines()) == ["A=b c", "FSOCKET_PIN=never", "LC_CTYPE=C", f"LD_PRELOAD={LIBRARY}"]


@pytest.mark.parametrize("script, status", [("exit 7", 7), ("kill -PIPE $$", -signal.SIGPIPE),
                                            ("kill -TERM $$", -signal.SIGTERM)])
def test_exit_status_and_signals_are_the_commands_own(script, status):
    assert fastsocket("run", "--", "sh", "-c", script).returncode == status


@pytest.mark.parametrize("separator", [["--"], []])
def test_options_after_the_command_are_its_own(separator):
    done = fastsocket("run", *separator, "sh", "-c", "echo $0 $1", "--strict", "--")
    assert done.stdout == "--strict --\n"


def test_process_id_and_standard_input_are_the_commands_own():
    with subprocess.Popen([*FASTSOCKET, "run", "--", "sh", "-c", "echo $$; cat"], cwd=ROOT, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
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


THINGS = {"a directory": Path.mkdir, "a FIFO": os.mkfifo, "a socket": a_socket, "nothing": lambda path: None,
          "a dangling link": lambda path: path.symlink_to("nowhere"), "a looping link": lambda path: path.symlink_to(path),
          "no program": lambda path: path.write_text("buy milk\n"), "an empty file": Path.touch,
          "a link to a program": lambda path: path.symlink_to("/bin/true"),
          "a link to a directory": lambda path: path.symlink_to("/")}


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


@pytest.mark.parametrize("name", ["", "/etc/passwd/x", "/" + "x" * 300, "x" * 300, "x/" * 3000, "/dev/null", "/proc/self/mem",
                                  "/proc/self/environ", "/sys/kernel/uevent_seqnum", "/"])
def test_names_that_lead_nowhere_end_as_with_env(name):
    done, checked = fastsocket("run", "--", name), fastsocket("check", name)
    assert done.returncode == status_of_env(name)
    assert checked.returncode in (1, 2, 3)
    assert "Traceback" not in done.stderr + checked.stderr


# ---- check, and whether it is right


@pytest.fixture
def compile_program(tmp_path):
    """A program like cat, linked as these options of gcc say."""
    need("gcc")

    def compile_with(*options):
        source, program = tmp_path / "print.c", tmp_path / "print"
        source.write_text('#include <stdio.h>\nint main(int n, char **v) { FILE *f = fopen(v[n - 1], "r"); int c;\n'
                          'while ((c = getc(f)) != EOF) putchar(c); return 0; }\n')
        subprocess.run(["gcc", *options, "-o", program, source], check=True)
        return program

    return compile_with


@pytest.fixture
def copy_of(tmp_path):
    def copy(command, name="copied"):
        shutil.copy(find(command), tmp_path / name)
        return tmp_path / name

    return copy


def is_loaded(program) -> bool:
    """What the loader does: the program prints its own mappings."""
    return str(LIBRARY) in fastsocket("run", "--", program, MAPS).stdout


def assert_no(program, *words):
    """It cannot be accelerated; and that is told by run, which runs it all the same unless it is to be strict."""
    checked = fastsocket("check", program)
    assert checked.returncode == 1
    ran, refused = fastsocket("run", "--", program, MAPS), fastsocket("run", "--strict", "--", program, MAPS)
    assert_one_line(ran, 0, "runs without acceleration", *words)
    assert_one_line(refused, 3, *words)
    assert ran.stdout and not refused.stdout
    for word in ("cannot be accelerated", "->", *words):
        assert word in checked.stdout
    assert not is_loaded(program)


def assert_yes(program):
    checked = fastsocket("check", program)
    assert checked.returncode == 0, checked.stdout
    assert "can be accelerated" in checked.stdout
    ran = fastsocket("run", "--strict", "--", program, MAPS)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert is_loaded(program)


def write_script(path, first_line):
    path.write_text(f"{first_line}\n")
    path.chmod(0o755)
    return path


def test_a_plain_program_can():
    assert_yes("cat")


@pytest.mark.parametrize("option", ["-static", "-static-pie"])
def test_a_static_program_cannot(compile_program, option):
    assert_no(compile_program(option), "statically linked")


@pytest.mark.privileged
@pytest.mark.parametrize("mode, word", [(0o4755, "setuid to nobody"), (0o2755, f"setgid to group {NOBODY}")])
def test_a_program_that_changes_its_identity_cannot(copy_of, mode, word):
    program = copy_of("cat")
    os.chown(program, NOBODY, NOBODY)
    program.chmod(mode)
    assert_no(program, word, "secure execution")


@pytest.mark.privileged
def test_a_setuid_program_of_the_caller_can(copy_of):
    program = copy_of("cat")
    program.chmod(0o6755)
    assert_yes(program)


@pytest.mark.privileged
def test_file_capabilities_are_in_the_way_of_all_but_root(copy_of, monkeypatch):
    program = copy_of("cat")
    net_bind_service, version_2_effective = 1 << 10, 0x02000001  # capabilities(7), linux/capability.h
    os.setxattr(program, "security.capability", struct.pack("<5I", version_2_effective, net_bind_service, 0, 0, 0))
    assert_yes(program)
    monkeypatch.setattr(os, "getuid", lambda: NOBODY)
    obstacle, = check(program, LIBRARY).obstacles
    assert "file capabilities" in obstacle.reason and "AmbientCapabilities" in obstacle.remedy


@pytest.mark.parametrize("options", [
    "-fsanitize=address", "-fsanitize=leak", "-fsanitize=undefined", "-fsanitize=thread", "-fsanitize=address -static-libasan", "-fsanitize=thread -static-libtsan",
    "-fsanitize=address -static-libasan -s"])
def test_a_program_with_a_sanitizer_cannot_and_runs_without_the_library(compile_program, options):
    assert_no(compile_program(*options.split()), "sanitizer")


def test_a_program_that_the_library_would_break_gets_the_callers_other_libraries(compile_program):
    program = compile_program("-fsanitize=undefined")
    other = "/lib/x86_64-linux-gnu/libm.so.6"
    if not Path(other).exists():
        pytest.skip(f"needs {other}")
    inner = [*FASTSOCKET, "run", "--", program, "/proc/self/environ"]
    shown = subprocess.run(inner, env=os.environ | {"LD_PRELOAD": f"{LIBRARY}:{other}"}, cwd=ROOT, capture_output=True, text=True)
    assert [word for word in shown.stdout.split("\0") if word.startswith("LD_PRELOAD=")] == [f"LD_PRELOAD={other}"]


@pytest.mark.parametrize("section", [".go.buildinfo", ".note.go.buildid"])
@pytest.mark.parametrize("options", [[], ["-static"]])
def test_a_go_program_cannot(compile_program, section, options):
    """Whether it is linked with libc or not, and then no word of linking it dynamically."""
    program = compile_program(*options)
    subprocess.run(["objcopy", "--add-section", f"{section}=/dev/null", program], check=True)
    obstacle, = check(program, LIBRARY).obstacles
    assert "Go" in obstacle.reason and "link" not in obstacle.remedy


def test_a_program_for_another_libc_cannot(compile_program):
    program = compile_program("-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1")
    obstacle, = check(program, LIBRARY).obstacles
    assert "/lib/ld-musl-x86_64.so.1" in obstacle.reason and "glibc" in obstacle.remedy


@pytest.mark.parametrize("offset, value, kind", [(18, 183, "AARCH64, 64 bits"), (4, 1, "32 bits")])
def test_a_program_for_another_machine_cannot(copy_of, offset, value, kind):
    """e_machine and EI_CLASS, at their places in the ELF header."""
    program = copy_of("true")
    content = bytearray(program.read_bytes())
    content[offset] = value
    program.write_bytes(content)
    done = fastsocket("check", program)
    assert done.returncode == 1
    assert kind in done.stdout or "neither a whole ELF" in done.stdout


@pytest.mark.parametrize("content", [b"", b"buy milk\n", b"\x7fELF", b"\x7fELF" + bytes(100)])
def test_what_is_no_program_cannot(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    done = fastsocket("check", tmp_path / "file")
    assert done.returncode == 1
    assert "neither a whole ELF program nor a script" in done.stdout


TRUE = find("true").read_bytes()
ENDS = st.integers(0, 63) | st.integers(64, 1200) | st.integers(len(TRUE) - 3000, len(TRUE) - 1)  # all headers
NUMBERS = st.sampled_from([0, 1, 0x7F, 0xFF])
PATCHES = st.lists(st.tuples(ENDS, st.lists(NUMBERS | st.integers(0, 255), min_size=1, max_size=8).map(bytes)), max_size=8)
FILES = st.binary(max_size=200) | st.binary(max_size=300).map(lambda rest: b"#!" + rest) | \
    st.binary(max_size=400).map(lambda rest: b"\x7fELF" + rest) | \
    st.builds(lambda patches, size: patched(patches)[:size], PATCHES, st.integers(0, len(TRUE) + 1000)) | \
    st.builds(lambda patches: patched(patches), PATCHES)


def patched(patches) -> bytes:
    content = bytearray(TRUE)
    for offset, value in patches:
        content[offset:offset + len(value)] = value
    return bytes(content)


@settings(max_examples=300, deadline=None)
@given(content=FILES)
def test_any_file_gets_an_answer_soon(tmp_path_factory, content):
    program = tmp_path_factory.getbasetemp() / "any"
    program.write_bytes(content)
    before = time.process_time()
    try:
        verdict = check(program, LIBRARY)
    except Exception as error:
        assert getattr(error, "exit_status", None) in (2, 3), error
        assert printable(str(error))
    else:
        assert all(obstacle.reason and obstacle.remedy for obstacle in verdict.obstacles)
    assert time.process_time() - before < 1


SECTION_COUNT, SECTION_SIZE, SECTIONS_AT, SEGMENT_COUNT, SEGMENT_SIZE = 60, 58, 40, 56, 54  # where elf(5) has them


@pytest.mark.parametrize("patches", [
    [(SECTION_COUNT, "H", 65535)], [(SECTION_SIZE, "H", 0)], [(SECTIONS_AT, "Q", (1 << 64) - 1)], [(SEGMENT_COUNT, "H", 0)],
    [(SECTIONS_AT, "Q", 0), (SECTION_COUNT, "H", 65535)], [(SEGMENT_COUNT, "H", 65535)], [(SEGMENT_SIZE, "H", 0)],
    [(SECTIONS_AT, "Q", 64), (SECTION_COUNT, "H", 900)]])
def test_headers_that_lie_get_an_answer(tmp_path, patches):
    program, content = tmp_path / "program", bytearray(TRUE)
    for offset, form, value in patches:
        struct.pack_into(form, content, offset, value)
    program.write_bytes(content)
    check(program, LIBRARY)


def test_a_huge_file_with_a_hole_gets_an_answer(tmp_path):
    """All of whose sections are symbols, each as long as the file."""
    program, content = tmp_path / "program", bytearray(TRUE)
    names, sections = 0, 50_000
    struct.pack_into("Q", content, SECTIONS_AT, len(TRUE))
    struct.pack_into("HH", content, SECTION_COUNT, sections, names)
    symbols = struct.pack("II16xQQI20x", 0, 11, 0, 30 << 20, 0)
    program.write_bytes(bytes(content) + symbols * sections)
    os.truncate(program, 1 << 40)
    before = time.process_time()
    check(program, LIBRARY)
    assert time.process_time() - before < 5


@pytest.mark.parametrize("first_line", ["#!/bin/cat", "#! /bin/cat", "#!/usr/bin/env cat", "#!/usr/bin/env -S A=b cat"])
def test_a_script_can_if_what_runs_it_can(tmp_path, first_line):
    script = write_script(tmp_path / "script", first_line)
    assert_yes(script)
    assert check(script, LIBRARY).executed.name == "cat"


ENV = "/usr/bin/env"


@pytest.mark.parametrize("first_line, kept", [
    (f"#!{ENV} -S -i cat", False), (f"#!{ENV} -iS cat", False), (f"#!{ENV} -vS-i cat", False), (f"#!{ENV} -S - cat", False),
    (f"#!{ENV} -S -u LD_PRELOAD cat", False), (f"#!{ENV} -S -uLD_PRELOAD cat", False), (f"#!{ENV} -S --unset=LD_PRELOAD cat", False),
    (f"#!{ENV} -S --uns LD_PRELOAD cat", False), (f"#!{ENV} -S --ignore-env cat", False), (f"#!{ENV} -S LD_PRELOAD= cat", False),
    (f"#!{ENV} -S 'LD_PRELOAD=/lib/other.so' cat", False), (f"#!{ENV} -S -i PATH=/bin sh -c \"cat /proc/self/maps\"", False),
    (f"#!{ENV} --split-string=-i cat", False), (f"#!{ENV} -S {ENV} -i cat", False), (f"#!{ENV} -S -i LD_PRELOAD={LIBRARY} cat", True),
    (f"#!{ENV} -S LD_PRELOAD=${{LD_PRELOAD}} cat", True), (f"#!{ENV} -S -u HOME A=-i cat", True), (f"#!{ENV} -S -C / cat", True),
    (f"#!{ENV} -S --default-signal=PIPE cat # -i", True), (f"#!{ENV} -S -u\\_LD_PRELOAD cat", False),
])
def test_a_script_behind_env_can_if_env_keeps_the_library(tmp_path, first_line, kept):
    script = write_script(tmp_path / "script", first_line)
    done = fastsocket("check", script)
    assert (done.returncode, "env takes LD_PRELOAD" in done.stdout) == (0 if kept else 1, not kept)
    assert is_loaded(script) == kept


@pytest.mark.parametrize("first_line", [f"#!{ENV} -i cat", f"#!{ENV} -S 'cat", f"#!{ENV} -Z cat", f"#!{ENV} -S -0 cat",
                                        f"#!{ENV} -S $HOME/cat", f"#!{ENV} -S --no-such cat"])
def test_a_script_that_env_refuses_cannot(tmp_path, first_line):
    script = write_script(tmp_path / "script", first_line)
    done = fastsocket("check", script)
    assert done.returncode == 1 and "env refuses" in done.stdout
    assert fastsocket("run", "--", script).returncode == subprocess.run([script], capture_output=True).returncode == 125


@pytest.mark.parametrize("arguments, status", [(["env", "-i", "cat", MAPS], 3), (["env", "A=1", "cat", MAPS], 0), (["env"], 0)])
def test_env_as_the_command_itself_is_seen_through(arguments, status):
    assert fastsocket("run", "--strict", "--", *arguments).returncode == status


ENV_WORDS = st.sampled_from([
    "-i", "-", "-u", "-uA", "-u A", "-S", "-S-i", "-v", "-iuB", "--", "--ignore", "--unset=A", "--unset", "--u=B", "--sp=C=3 -u A",
    "A=2", "B=", "C=x=y", "-S A=1 B=2", "-S'A=1 2'", '-S"B=$x"', "-S${A}=7", "-SA=\\_B=3", "-S-u\tA", "-SB='\\q'", "-SB=\"\\t\" C=#1",
    "-S#x", "-SB=1\\c C=2", "-0", "--null", "-C/", "-C", "--chdir=/", "-Su A", "--debug", "-z", "--de", "-SA=1 # B=2", ""])


@settings(max_examples=200, deadline=None)
@given(words=st.lists(ENV_WORDS, max_size=4))
def test_we_read_the_arguments_of_env_as_env_does(words):
    environment_ = {"A": "a b", "B": "b", "PATH": os.environ["PATH"]}
    command = [*words, "/usr/bin/printenv"]
    real = subprocess.run(["env", *command], env=environment_, capture_output=True, text=True)
    try:
        found = env.parse(command, environment_)
    except env.EnvError as error:
        assert real.returncode == 125 or real.returncode == 0 and "no command" in str(error), error
        return
    if found.words == ["/usr/bin/printenv"] and not found.directory:
        assert real.returncode == 0
        assert sorted(real.stdout.splitlines()) == sorted(f"{name}={value}" for line in [found.variables.items()]
                                                          for name, value in line)


def test_a_script_cannot_if_what_runs_it_cannot(tmp_path, compile_program):
    assert_no(write_script(tmp_path / "script", f"#!{compile_program('-static')}"), "statically linked", "script")


def test_a_script_of_a_script_is_followed(tmp_path):
    first = write_script(tmp_path / "first", "#!/bin/cat")
    assert_yes(write_script(tmp_path / "second", f"#!{first}"))


def test_scripts_are_followed_as_far_as_the_kernel_goes(tmp_path):
    """execve(2): five interpreters that are scripts, and then ELOOP."""
    interpreter = "/bin/cat"
    for depth in range(1, 7):
        interpreter = write_script(tmp_path / f"script{depth}", f"#!{interpreter}")
        ran, checked = subprocess_status(interpreter), fastsocket("check", interpreter).returncode
        assert (ran == 0) == (checked == 0), depth


def subprocess_status(program) -> int | None:
    try:
        return subprocess.run([program, MAPS], capture_output=True).returncode
    except OSError:
        return None


def test_a_script_that_runs_itself_gets_an_answer(tmp_path):
    script = tmp_path / "script"
    assert_one_line(fastsocket("check", write_script(script, f"#!{script}")), 2, "interpreters")


@pytest.mark.parametrize("first_line", ["#!/no/such/interpreter", "#!", "#!/usr/bin/env no-such-command"])
def test_a_script_without_its_interpreter_is_no_program(tmp_path, first_line):
    script = write_script(tmp_path / "script", first_line)
    assert_one_line(fastsocket("check", script), 2, str(script), "interpreter")
    assert_one_line(fastsocket("run", "--", script), 127, str(script), "interpreter")


@pytest.mark.parametrize("command", ["true", "nginx"])
def test_a_program_that_never_listens_is_told_from_a_server(command):
    verdict = check(find(command), LIBRARY)
    assert verdict.can_be_accelerated
    assert bool(verdict.notes) == (command == "true")


@pytest.mark.needs("gcc")
def test_calls_in_libraries_count(tmp_path):
    """The program itself imports serve() alone."""
    (tmp_path / "serve.c").write_text("#include <sys/socket.h>\n#include <sys/epoll.h>\n"
                                      "int serve(void) { return listen(0, 0) + accept(0, 0, 0) + "
                                      "epoll_ctl(0, 0, 0, 0); }\n")
    (tmp_path / "main.c").write_text("int serve(void); int main(void) { return serve(); }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "libserve.so", "serve.c"], cwd=tmp_path, check=True)
    subprocess.run(["gcc", "-o", "main", "main.c", "-L.", "-lserve", "-Wl,-rpath,$ORIGIN"], cwd=tmp_path, check=True)
    assert check(tmp_path / "main", LIBRARY).notes == []


def refusal(command) -> list:
    """The exception that find() and check() end with."""
    try:
        check(find(command), LIBRARY)
    except Exception as error:
        return [type(error).__name__, error.exit_status, str(error)]


@pytest.mark.privileged
def test_a_program_that_may_not_be_read_is_status_3_and_a_remedy(copy_of):
    program = copy_of("cat")  # in a directory that is root's alone
    name, status, message = as_nobody(lambda: refusal(str(program)))
    assert (name, status) == ("Unreadable", 3)
    assert str(program) in message and "nobody" in message and "sudo" in message


def test_check_for_programs(compile_program):
    program = compile_program("-static")
    done = fastsocket("check", "--json", program)
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert not answer["can_be_accelerated"]
    assert answer["program"] == answer["executed"] == str(program)
    assert [set(obstacle) for obstacle in answer["obstacles"]] == [{"reason", "remedy"}]


# ---- the page

LAYOUT = {"struct page": page.Header, "struct cpu_counters": page.CountersLine, "struct seat": page.SeatLine,
          "struct shared_listener": page.ListenerHead}
PLACES = {"offsetof(struct page, cpu)": page.COUNTERS_OFFSET, "sizeof(struct cpu_counters)": page.COUNTERS_STRIDE,
          "offsetof(struct page, listener)": page.LISTENERS_OFFSET,
          "sizeof(struct shared_listener)": page.LISTENERS_STRIDE,
          "offsetof(struct shared_listener, seat)": page.SEATS_OFFSET, "sizeof(struct seat)": page.SEATS_STRIDE,
          "sizeof(struct page)": page.PAGE_BYTES, "FSOCKET_PAGE_VERSION": page.VERSION, "CPU_SETSIZE": page.MAX_CPUS,
          "MAX_LISTENERS": page.MAX_LISTENERS, "MAX_ADOPTERS": page.MAX_ADOPTERS}


def fields_of(mirror: type[Structure]) -> dict[str, tuple[int, int]]:
    return {name: (getattr(mirror, name).offset, getattr(mirror, name).size) for name, _ in mirror._fields_}


@pytest.mark.needs("gcc")
def test_python_and_c_agree_on_the_page(tmp_path):
    in_python = {f"offsetof({struct}, {field})": offset for struct, mirror in LAYOUT.items()
                 for field, (offset, _) in fields_of(mirror).items()}
    in_python |= {f"sizeof((({struct} *)0)->{field})": size for struct, mirror in LAYOUT.items()
                  for field, (_, size) in fields_of(mirror).items()}
    questions = [f'printf("%ld\\n", (long)({question}));\n' for question in (in_python | PLACES)]
    (tmp_path / "layout.c").write_text(
        "#define _GNU_SOURCE\n#include <stddef.h>\n#include <stdio.h>\n#include \"fsocket.h\"\nint main(void) {\n"
        + "".join(questions) + "puts(FSOCKET_PAGE_MAGIC); puts(FSOCKET_PAGE_NAME); return 0; }\n")
    subprocess.run(["gcc", "-I", HERE / "libfsocket", "-o", "layout", "layout.c"], cwd=tmp_path, check=True)
    answers = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True).stdout.splitlines()
    *numbers, magic, name = answers
    assert dict(zip(in_python | PLACES, map(int, numbers), strict=True)) == in_python | PLACES
    assert (magic, f"/memfd:{name} (deleted)") == (page.MAGIC.decode(), page.MAPPING)


def honest_header(**other) -> bytes:
    """How a page begins whose geometry is that of the version, but for what is named here."""
    return bytes(page.Header(**{"magic": page.MAGIC, "version": page.VERSION, "cpus": machine_cpus()}
                             | page.GEOMETRY | other))


@contextmanager
def mapped(content: bytes, size: int = page.PAGE_BYTES):
    """This process maps something under the library's name."""
    with ExitStack() as stack:
        memory = os.memfd_create("fsocket")
        stack.callback(os.close, memory)
        os.truncate(memory, size)
        os.pwrite(memory, content, 0)
        yield stack.enter_context(mmap.mmap(memory, size))


def full_of(number: int) -> bytes:
    """A page each of whose places is taken, and names this process or thread wherever it can."""
    seat = bytes(page.SeatLine((number << 32 | number,) * page.MAX_ADOPTERS, 1, 1)).ljust(page.SEATS_STRIDE, b"\1")
    head = bytes(page.ListenerHead(1, number, 1, (2, 0, *[255] * 126), b"\x1b[31m" + b"w" * 100))
    place = head.ljust(page.SEATS_OFFSET, b"\1") + seat * page.MAX_CPUS
    return honest_header(cpus=page.MAX_CPUS).ljust(page.LISTENERS_OFFSET, b"\xff") + place * page.MAX_LISTENERS


@settings(max_examples=100, deadline=None)
@given(cpus=st.integers(0, page.MAX_CPUS), rest=st.binary(max_size=4096), at=st.integers(0, page.LISTENERS_OFFSET + 4096))
def test_what_anybody_maps_under_our_name_does_no_harm(cpus, rest, at):
    """A user may, to be seen by root: a page that is honest about nothing but its geometry."""
    header = honest_header(cpus=cpus)
    with mapped(header + bytes(at) + rest), page.Page(os.getpid()) as read:
        assert len(read.counters()) == min(cpus, machine_cpus())
        for listener in read.listeners():
            assert listener.why_not.isprintable() and len(str(listener)) < 80 and len(listener.why_not) < 1200
            assert {cpu.cpu for cpu in listener.cpus} <= set(range(machine_cpus()))


@pytest.mark.parametrize("name, value", [("version", page.VERSION + 1), ("magic", b"FSOCKET!"), ("cpus", page.MAX_CPUS + 1),
                                         *((name, value) for name in page.GEOMETRY for value in (0, 1 << 31))])
def test_a_page_of_any_other_geometry_is_refused(name, value):
    with mapped(honest_header(**{name: value})), pytest.raises(page.OtherVersion, match=str(os.getpid())):
        page.Page(os.getpid())


@pytest.mark.privileged
@pytest.mark.parametrize("size", [4096, page.PAGE_BYTES - 1, page.PAGE_BYTES + 4096, 1 << 40])
def test_a_page_of_any_other_size_is_refused(size):
    """Through another process's memory, as others than root must, it is not seen."""
    with mapped(honest_header(), size), pytest.raises(page.OtherVersion, match=str(size)):
        page.Page(os.getpid())


@pytest.mark.privileged
def test_a_page_that_is_cut_while_it_is_read_has_ended():
    with mapped(honest_header()) as memory, page.Page(os.getpid()) as read:
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
        line, = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.endswith(f" {page.MAPPING}")]
        with pytest.raises(page.NotPreloaded, match="without libfsocket.so"):
            page.mapping_of(pid)
        put_there_since = page.Mapping(line.split()[0], int(line.split()[4]))
        with pytest.raises(page.OtherVersion, match="something else"):
            page.Page(pid, put_there_since)


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
    assert len(done.stderr.splitlines()) <= 2
    assert ("of nobody" in done.stderr) == (count > 1)
    ports = [listener["port"] for server in json.loads(done.stdout) for listener in server["listeners"]]
    assert honest.port in ports


@pytest.mark.privileged
def test_a_process_that_was_left_out_is_told_so_when_it_is_named(monkeypatch):
    monkeypatch.setattr(budget, "SECONDS_OF_A_USER", 0)
    with impostors(1):
        found = survey()
        (pid,), = found.left_out.values()
        reason = absence(pid, found)
    assert reason.exit_status == 3 and f"process {pid} was left out" in str(reason)


@pytest.mark.privileged
def test_who_is_not_root_reads_the_page_of_a_process_of_his_own():
    def read():
        ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE, which changing the user has taken away
        with mapped(full_of(os.getpid())), page.Page(os.getpid()) as found:
            return [len(list(found.listeners())), len(found.counters())]
    assert as_nobody(read) == [page.MAX_LISTENERS, machine_cpus()]


@pytest.mark.privileged
def test_servers_of_another_version_are_one_line(start):
    with ExitStack() as stack:
        pages = [stack.enter_context(mapped(honest_header(version=page.VERSION + 1))) for _ in range(2)]
        done = fastsocket("status")
        assert len(pages) == 2 and str(os.getpid()) in done.stderr
        assert sum("another version" in line for line in done.stderr.splitlines()) == 1


# ---- status


@pytest.fixture
def start():
    """Servers under the command run, listening; each ends with the test."""
    started = []

    def start_with(*options, launcher=()):
        app = ServerApp({}, launcher=[*launcher, *FASTSOCKET, "run", *options, "--"])
        started.append(app)
        app.__enter__()
        app.listen()
        return app

    yield start_with
    for app in started:
        app.__exit__(None)


@pytest.fixture
def app(start):
    if len(CPUS) < 2:
        pytest.skip("a worker on each of two CPUs")
    return start()


def seen(app) -> Server:
    """The server as one look at all processes finds it, by its port."""
    server, = [server for server in survey().servers if app.port in [listener.port for listener in server.listeners]]
    return server


def adopters(server: Server) -> dict[int, list[page.Adopter]]:
    return {cpu.cpu: cpu.adopters for cpu in server.listeners[0].cpus}


def test_a_server_started_by_run_is_accelerated_and_shown(app):
    workers = [app.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS]
    for cpu in CPUS:
        app.request(cpu, 20)
    server, listener = seen(app), seen(app).listeners[0]
    assert (server.pid, server.processes) == (app.pid, sorted([app.pid, *workers]))
    assert (listener.address, listener.port, listener.creator, listener.why_not) == ("127.0.0.1", app.port, app.pid, "")
    assert adopters(server) == {cpu: [page.Adopter(pid, pid)] for cpu, pid in zip(CPUS, workers)}
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
    (adopter,), = adopters(server).values()
    assert adopter.process in server.processes and adopter.process != server.pid
    assert server.listeners[0].creator == server.pid


def test_two_servers_are_two(start):
    first, second = start(), start()
    assert seen(first).processes == [first.pid]
    assert seen(second).processes == [second.pid]


def test_a_listener_that_is_closed_is_shown_no_longer(app):
    app.ask("close")
    server, = survey().of([app.pid])
    assert server.listeners == []


@pytest.mark.parametrize("option", [["--only", "1"], ["--no-listen-table", "--fast-epoll"]])
def test_status_says_why_a_server_is_not_accelerated(start, option):
    app = start(*option)
    app.ask("fork", "a", CPUS[0])
    listener, = seen(app).listeners
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
    server, = json.loads(fastsocket("status", "--json", app.pid).stdout)
    assert set(server) == {"pid", "command", "processes", "listeners", "counters"}
    listener, = server["listeners"]
    assert set(listener) == {"address", "port", "creator", "why_not", "cpus"}
    assert set(listener["cpus"][0]) == {"cpu", "listening", "adopters", "tended_ms_ago"}
    assert set(server["counters"][0]) == {"cpu", "accepted_local", "accepted_global", "accepted_neighbour", "adopted",
                                          "fallen_back", "deferred", "registered", "delivered", "undelivered"}


def test_status_for_prometheus(start):
    apps = [start(), start()]
    for app in apps:
        app.ask("fork", "a", CPUS[0])
        app.request(CPUS[0], 3)
    shown = fastsocket("status", "--prometheus", *(app.pid for app in apps)).stdout
    families = list(text_string_to_metric_families(shown))
    assert all(family.documentation for family in families)
    samples = {(sample.name, *sorted(sample.labels.items())): sample.value
               for family in families for sample in family.samples}
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


@pytest.mark.parametrize("pid, word", [(NO_PID, "has ended"), (os.getpid(), "without libfsocket.so")])
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
    with subprocess.Popen([*FASTSOCKET, "status", "--watch", "0.1", str(app.pid)], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as watching:
        headings = 0
        while headings < 3:
            headings += f"process {app.pid}" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.communicate()[1] == ""
    assert watching.returncode == 0
