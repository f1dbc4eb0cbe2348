"""fastsocket check: whether it is right, on real programs and scripts, and on files that lie."""

import json
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsocket import env
from fastsocket.binary import check, find
from fastsocket.build import LIBRARY
from fastsocket.printable import printable
from tests.harness.commands import MAPS, NOBODY, as_nobody, assert_one_line, fastsocket
from tests.harness.needs import need

pytestmark = pytest.mark.timeout(60)
LOADED = str(LIBRARY)  # in what a program prints that shows its own mappings, if the loader has taken the library


@pytest.fixture
def compile_program(tmp_path):
    """A program like cat, linked as these options of gcc say."""
    need("gcc")

    def compile_with(*options):
        source, program = tmp_path / "print.c", tmp_path / "print"
        source.write_text(
            '#include <stdio.h>\nint main(int n, char **v) { FILE *f = fopen(v[n - 1], "r"); int c;\n'
            "while ((c = getc(f)) != EOF) putchar(c); return 0; }\n"
        )
        subprocess.run(["gcc", *options, "-o", program, source], check=True)
        return program

    return compile_with


@pytest.fixture
def copy_of(tmp_path):
    def copy(command, name="copied"):
        shutil.copy(find(command), tmp_path / name)
        return tmp_path / name

    return copy


def assert_no(program, *words):
    """It cannot be accelerated; and that is told by run, which runs it all the same unless it is to be strict."""
    checked = fastsocket("check", program)
    assert checked.returncode == 1
    ran, refused = fastsocket("run", "--", program, MAPS), fastsocket("run", "--strict", "--", program, MAPS)
    assert_one_line(ran, 0, "runs without acceleration", *words)
    assert_one_line(refused, 3, *words)
    assert ran.stdout and LOADED not in ran.stdout and not refused.stdout
    for word in ("cannot be accelerated", "->", *words):
        assert word in checked.stdout


def assert_yes(program):
    checked = fastsocket("check", program)
    assert checked.returncode == 0, checked.stdout
    assert "can be accelerated" in checked.stdout
    ran = fastsocket("run", "--strict", "--", program, MAPS)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert LOADED in ran.stdout


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
def test_the_loader_leaves_the_library_out_of_a_setuid_program(copy_of):
    program = copy_of("cat")
    command, environment = [program, "/proc/self/maps"], {"LD_PRELOAD": str(LIBRARY)}
    assert LIBRARY.name in subprocess.check_output(command, text=True, env=environment)
    os.chown(program, NOBODY, NOBODY)
    program.chmod(0o4755)
    assert LIBRARY.name not in subprocess.check_output(command, text=True, env=environment)


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
    (obstacle,) = check(program, LIBRARY).obstacles
    assert "file capabilities" in obstacle.reason and "AmbientCapabilities" in obstacle.remedy


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "-fsanitize=address",
        "-fsanitize=leak",
        "-fsanitize=undefined",
        "-fsanitize=thread",
        "-fsanitize=thread -static-libtsan",
        "-fsanitize=address -static-libasan",
        "-fsanitize=address -static-libasan -s",
    ],
)
def test_a_program_with_a_sanitizer_cannot_and_runs_without_the_library(compile_program, options):
    assert_no(compile_program(*options.split()), "sanitizer")


def test_a_program_that_the_library_would_break_gets_the_callers_other_libraries(compile_program):
    program = compile_program("-fsanitize=undefined")
    other = "/lib/x86_64-linux-gnu/libm.so.6"
    if not Path(other).exists():
        pytest.skip(f"needs {other}")
    preloaded = os.environ | {"LD_PRELOAD": f"{LIBRARY}:{other}"}
    shown = fastsocket("run", "--", program, "/proc/self/environ", env=preloaded)
    assert [word for word in shown.stdout.split("\0") if word.startswith("LD_PRELOAD=")] == [f"LD_PRELOAD={other}"]


@pytest.mark.parametrize("section", [".go.buildinfo", ".note.go.buildid"])
@pytest.mark.parametrize("options", [[], ["-static"]])
def test_a_go_program_cannot(compile_program, section, options):
    """Whether it is linked with libc or not, and then no word of linking it dynamically."""
    program = compile_program(*options)
    subprocess.run(["objcopy", "--add-section", f"{section}=/dev/null", program], check=True)
    (obstacle,) = check(program, LIBRARY).obstacles
    assert "Go" in obstacle.reason and "link" not in obstacle.remedy


def test_a_program_for_another_libc_cannot(compile_program):
    program = compile_program("-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1")
    (obstacle,) = check(program, LIBRARY).obstacles
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
VALUES = st.lists(NUMBERS | st.integers(0, 255), min_size=1, max_size=8).map(bytes)
PATCHES = st.lists(st.tuples(ENDS, VALUES), max_size=8)


def patched(patches) -> bytes:
    content = bytearray(TRUE)
    for offset, value in patches:
        content[offset : offset + len(value)] = value
    return bytes(content)


FILES = (
    st.binary(max_size=200)
    | st.binary(max_size=300).map(lambda rest: b"#!" + rest)
    | st.binary(max_size=400).map(lambda rest: b"\x7fELF" + rest)
    | st.builds(lambda patches, size: patched(patches)[:size], PATCHES, st.integers(0, len(TRUE) + 1000))
    | st.builds(patched, PATCHES)
)


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


@pytest.mark.parametrize(
    "patches",
    [
        [(SECTION_COUNT, "H", 65535)],
        [(SECTION_SIZE, "H", 0)],
        [(SECTIONS_AT, "Q", (1 << 64) - 1)],
        [(SEGMENT_COUNT, "H", 0)],
        [(SECTIONS_AT, "Q", 0), (SECTION_COUNT, "H", 65535)],
        [(SEGMENT_COUNT, "H", 65535)],
        [(SEGMENT_SIZE, "H", 0)],
        [(SECTIONS_AT, "Q", 64), (SECTION_COUNT, "H", 900)],
    ],
)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, kept",
    [
        ("-S -i cat", False),
        ("-iS cat", False),
        ("-vS-i cat", False),
        ("-S - cat", False),
        ("-S -u LD_PRELOAD cat", False),
        ("-S -uLD_PRELOAD cat", False),
        ("-S -u\\_LD_PRELOAD cat", False),
        ("-S --unset=LD_PRELOAD cat", False),
        ("-S --uns LD_PRELOAD cat", False),
        ("-S --ignore-env cat", False),
        ("-S LD_PRELOAD= cat", False),
        ("-S 'LD_PRELOAD=/lib/other.so' cat", False),
        ('-S -i PATH=/bin sh -c "cat /proc/self/maps"', False),
        ("--split-string=-i cat", False),
        (f"-S {ENV} -i cat", False),
        (f"-S -i LD_PRELOAD={LIBRARY} cat", True),
        ("-S LD_PRELOAD=${LD_PRELOAD} cat", True),
        ("-S -u HOME A=-i cat", True),
        ("-S -C / cat", True),
        ("-S --default-signal=PIPE cat # -i", True),
        (" \t -S\t-i \tcat", False),
    ],
)
def test_a_script_behind_env_can_if_env_keeps_the_library(tmp_path, words, kept):
    script = write_script(tmp_path / "script", f"#!{ENV} {words}")
    done = fastsocket("check", script)
    assert (done.returncode, "env takes LD_PRELOAD" in done.stdout) == (0 if kept else 1, not kept)
    assert (LOADED in fastsocket("run", "--", script, MAPS).stdout) == kept


@pytest.mark.parametrize("words", ["-i cat", "-S 'cat", "-Z cat", "-S -0 cat", "-S $HOME/cat", "-S --no-such cat"])
def test_a_script_that_env_refuses_cannot(tmp_path, words):
    script = write_script(tmp_path / "script", f"#!{ENV} {words}")
    done = fastsocket("check", script)
    assert done.returncode == 1 and "env refuses" in done.stdout
    assert fastsocket("run", "--", script).returncode == subprocess.run([script], capture_output=True).returncode == 125


@pytest.mark.parametrize(
    "arguments, status", [(["env", "-i", "cat", MAPS], 3), (["env", "A=1", "cat", MAPS], 0), (["env"], 0)]
)
def test_env_as_the_command_itself_is_seen_through(arguments, status):
    assert fastsocket("run", "--strict", "--", *arguments).returncode == status


ENV_WORDS = st.sampled_from(
    [
        "-i",
        "-",
        "-u",
        "-uA",
        "-u A",
        "-S",
        "-S-i",
        "-v",
        "-iuB",
        "--",
        "--ignore",
        "--unset=A",
        "--unset",
        "--u=B",
        "-0",
        "--sp=C=3 -u A",
        "A=2",
        "B=",
        "C=x=y",
        "-S A=1 B=2",
        "-S'A=1 2'",
        '-S"B=$x"',
        "-S${A}=7",
        "-SA=\\_B=3",
        "-S-u\tA",
        "-SB='\\q'",
        '-SB="\\t" C=#1',
        "-S#x",
        "-SB=1\\c C=2",
        "--null",
        "-C/",
        "-C",
        "--chdir=/",
        "-Su A",
        "--debug",
        "-z",
        "--de",
        "-SA=1 # B=2",
        "",
    ]
)


@settings(max_examples=200, deadline=None)
@given(words=st.lists(ENV_WORDS, max_size=4))
def test_we_read_the_arguments_of_env_as_env_does(words):
    environment_ = {"A": "a b", "B": "b", "PATH": os.environ["PATH"]}
    command = [*words, "/usr/bin/printenv"]
    real = subprocess.run(["env", *command], env=environment_, capture_output=True, text=True)
    try:
        found = env.parse(command, environment_)
    except env.EnvError as error:
        assert real.returncode == 125 or (real.returncode == 0 and "no command" in str(error)), error
        return
    if found.words == ["/usr/bin/printenv"] and not found.directory:
        assert real.returncode == 0
        assert sorted(real.stdout.splitlines()) == sorted(map("=".join, found.variables.items()))


@pytest.mark.slow
def test_a_script_cannot_if_what_runs_it_cannot(tmp_path, compile_program):
    assert_no(write_script(tmp_path / "script", f"#!{compile_program('-static')}"), "statically linked", "script")


def test_a_script_of_a_script_is_followed(tmp_path):
    first = write_script(tmp_path / "first", "#!/bin/cat")
    assert_yes(write_script(tmp_path / "second", f"#!{first}"))


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "first_line", ["#!/no/such/interpreter", "#!", "#!/usr/bin/env no-such-command", "#!cat", "#!/bin/cat\r"]
)
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
    (tmp_path / "serve.c").write_text(
        "#include <sys/socket.h>\n#include <sys/epoll.h>\n"
        "int serve(void) { return listen(0, 0) + accept(0, 0, 0) + "
        "epoll_ctl(0, 0, 0, 0); }\n"
    )
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
