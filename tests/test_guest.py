"""lab.py guest: what is asked of QEMU, what is understood of the console, and real guests from boot to their end."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from guest import GuestError, acceleration, kernels, matrix
from guest.console import Console
from guest.kernels import Kernel, newest_package
from guest.machine import Machine, Task, _BootOops, _Life, command_script, qemu_command
from guest.terminal import Terminal
from setup.bootstrap import ROOT, needed_packages
from tests.harness.commands import LAB, assert_one_line, lab, path_without
from tests.harness.cpus import NEEDS_TWO_CPUS
from tests.harness.patience import patient
from tests.harness.waiting import ending, wait_until
from topologies.tag import REGISTRY, leftovers, processes_of

pytestmark = pytest.mark.timeout(1800)  # guests are slow where they are emulated, and more so beside other work
KNOWN = """\
linux-image-6.1.0-9-amd64
linux-image-6.1.0-56-amd64
linux-image-6.1.0-57-rt-amd64
linux-image-6.1.0-58-amd64-dbg
linux-image-6.1.0-59-cloud-amd64
linux-image-6.1.0-60-amd64-unsigned
linux-image-6.12-amd64
linux-image-6.12.9+deb12-amd64
linux-image-6.12.117+deb12-amd64
linux-image-6.16.3+deb13-cloud-amd64
linux-image-amd64
"""


@pytest.mark.parametrize(
    "series, package",
    [
        ("6.1", "linux-image-6.1.0-56-amd64"),
        ("6.12", "linux-image-6.12.117+deb12-amd64"),
        ("6.16", "linux-image-6.16.3+deb13-cloud-amd64"),
        ("newest", "linux-image-6.16.3+deb13-cloud-amd64"),
        ("5.10", None),
    ],
)
def test_the_newest_kernel_of_a_series_is_chosen_and_no_variety_of_it(series, package):
    assert newest_package(series, KNOWN) == package


def console(*chunks: str) -> Console:
    made = Console("guest-0123")
    for chunk in chunks:
        made.add(chunk.encode())
    return made


def test_only_a_whole_line_with_the_mark_of_this_boot_tells_of_an_end():
    assert console("guest-0123 up\r\n", "guest-01", "23 7\r\n").status == 7
    for said in ("guest-9999 0\n", "echo guest-0123 0\n", "guest-0123 0", "guest-0123 zero\n"):
        assert console(said).status is None
    assert console("\nguest-0123 up\n").is_up and not console("guest-9999 up\n").is_up


def test_the_console_knows_what_went_wrong_and_the_lines_before_it():
    lines = [f"[    1.{number:06}] line {number}\r\n" for number in range(50)]
    panicked = console(*lines, "[    2.000000] Kernel panic - not syncing: no init\r\n", "[    2.1] Offset: 0\r\n")
    assert panicked.reason == "Kernel panic - not syncing: no init" and not panicked.is_oops
    assert len(panicked.tail) == 20 and panicked.tail[0].endswith("line 32")


@pytest.mark.parametrize(
    "chunks, error, words",
    [
        (["[ 1.0] BUG: unable to handle page fault\n"], _BootOops, "BUG: unable"),
        (["guest-0123 up\n", "[ 9.0] BUG: unable to handle page fault\n"], GuestError, "while it ran nginx -t: BUG"),
        (["[ 1.0] Kernel panic - not syncing: VFS\n"], GuestError, "did not boot: Kernel panic"),
        ([], GuestError, "did not boot: QEMU said no"),
    ],
)
def test_only_a_kernel_that_fails_while_it_boots_gets_a_second_try(chunks, error, words, tmp_path):
    with Terminal(is_shell=False) as terminal:
        life = _Life(Machine(), Task(["nginx", "-t"], tmp_path), console(*chunks), terminal)
        with pytest.raises(GuestError, match=words) as raised:
            life.outcome("QEMU said no")
    assert type(raised.value) is error


def test_eight_cpus_with_two_threads_are_four_cores(tmp_path):
    machine, booted = Machine(cpus=8, threads=2, network=True), Kernel("6.1", tmp_path, None)
    command = qemu_command(machine, booted, tmp_path, "tcg", tmp_path, serial=5, errors=6)
    assert "8,sockets=1,cores=4,threads=2" in command
    assert "tcg,thread=single" in command
    assert sum("queues=8" in argument for argument in command) == 1
    assert "fastsocket_lab_guest=tcg" in command[-1]


def test_a_command_has_our_environment_and_what_slowness_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSOCKET_LAB_START_SECONDS", "7")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    with Terminal(is_shell=False) as terminal:
        script = command_script(Task(["echo", "a b"], tmp_path), "tcg", terminal)
        quick = command_script(Task([], tmp_path), "kvm", terminal)
    assert "export FASTSOCKET_LAB_START_SECONDS=7\n" in script and "GRACE_SECONDS=200\n" in script
    assert "export TERM=dumb\n" in script and f"FASTSOCKET_LAB_RESULTS={tmp_path}\n" in script
    assert "SECRET_TOKEN" not in script and "GRACE" not in quick
    assert script.endswith("exec echo 'a b'\n")


@pytest.mark.privileged
@pytest.mark.guest
@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--cpus", "8", "--threads", "3"], ["8 CPUs", "--threads"]),
        (["--memory", "much"], ["much", "2G"]),
        (["--accel", "xen"], ["xen", "kvm, tcg"]),
        (["--net", "--cpus", "1"], ["--net", "2 CPUs"]),
        (["--kernel", "nonsense"], ["nonsense", "6.12", ".deb"]),
        (["--kernel", "2.6"], ["2.6", "6.1"]),
        (["--kernel", "README.md"], ["README.md", "no kernel"]),
        (["--results", "/nowhere"], ["/nowhere"]),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments, words):
    assert_one_line(lab("guest", *arguments, "--", "true", cwd=ROOT), 2, *words)


def test_without_qemu_and_without_yes_it_says_what_to_install(tmp_path):
    environment = path_without("qemu-system-x86_64", tmp_path, needed_packages("guest"))
    (tmp_path / "apt-get").symlink_to("/usr/bin/apt-get")
    assert_one_line(lab("guest", "--", "true", env=environment), 3, "qemu-system-x86", "--yes")


def test_a_guest_needs_what_its_verb_needs(tmp_path):
    """It has no packages but this machine's."""
    environment = path_without("node", tmp_path, {*needed_packages("guest"), *needed_packages("test")})
    (tmp_path / "apt-get").symlink_to("/usr/bin/apt-get")
    assert_one_line(lab("guest", "--", "test", env=environment), 3, "nodejs", "--yes")


# Real guests, of the smallest kind.


def guest(*arguments: str, **options):
    return lab("guest", "--cpus", "2", *arguments, **{"cwd": ROOT, **options})


def registered() -> set[Path]:
    """What runs have in the registry: other guests may live beside ours."""
    return set(REGISTRY.glob("*"))


def complaint(done) -> str:
    """What lab.py said, behind the line on what runs."""
    assert done.returncode == 3, (done.stdout, done.stderr)
    return next(line for line in done.stderr.splitlines() if line.startswith("lab.py: "))


@pytest.fixture
def results():
    """A folder on disk that belongs to somebody else."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chown(folder, 1234, 4321)
        yield Path(folder)


WHAT_IT_IS = """\
uname -r; nproc; pwd; hostname; ulimit -n; cat /sys/class/net/lo/operstate
ls -d /sys/fs/bpf /sys/kernel/debug/bdi | cat
cat /sys/devices/system/cpu/cpu2/topology/thread_siblings_list; grep -c ^cgroup2 /proc/mounts; ls /tmp | wc -l
ip netns exec client busybox ping -c 1 -W 20 10.9.0.2 | grep -c ttl=63; ls -d /sys/class/net/eth0/queues/rx-* | wc -l
echo back >$FASTSOCKET_LAB_RESULTS/file; echo complaint >&2; exit 42
"""


@pytest.mark.privileged
@pytest.mark.guest
def test_a_guest_is_another_machine_on_these_files_and_results_come_back(results):
    """Its network devices have a queue for each CPU, and a way to each other."""
    before = registered()
    done = guest("--cpus", "4", "--threads", "2", "--net", "--results", str(results), "--", "sh", "-c", WHAT_IT_IS)
    assert done.returncode == 42, done.stderr
    version, *rest = done.stdout.splitlines()
    assert version.startswith("6.1.")
    assert rest == [
        "4",
        str(ROOT),
        "guest",
        "20000",
        "unknown",
        "/sys/fs/bpf",
        "/sys/kernel/debug/bdi",
        "2-3",
        "1",
        "0",
        "1",
        "4",
    ]
    assert done.stderr.splitlines()[1:] == ["complaint"]
    assert (results / "file").read_text() == "back\n"
    wait_until(lambda: registered() <= before, "nothing of it is registered; guests beside it end, too", patient(120))


@pytest.mark.privileged
@pytest.mark.guest
def test_nothing_that_a_guest_does_to_the_files_reaches_the_host(tmp_path):
    """Not even where it mounts them again, past its overlay."""
    victim = ROOT / "results"
    script = (
        f"touch {ROOT}/touched /etc/touched /touched; rm {ROOT}/README.md; ls {ROOT}/touched; mkdir /tmp/host; "
        f"mount -t virtiofs host /tmp/host; touch /tmp/host{ROOT}/touched; echo $?; "
        "touch /tmp/host/run/touched; echo $?"
    )
    done = guest("--", "sh", "-c", script)
    assert done.stdout.splitlines() == [f"{ROOT}/touched", "1", "1"], done.stderr
    assert "Read-only file system" in done.stderr
    assert (ROOT / "README.md").exists() and victim.exists()
    assert not any(Path(place, "touched").exists() for place in (ROOT, "/etc", "/"))


@pytest.mark.privileged
@pytest.mark.guest
def test_a_panic_is_one_line_and_the_end_of_the_console():
    done = guest("--", "sh", "-c", "echo before; echo c >/proc/sysrq-trigger")
    assert "was lost while it ran sh -c" in complaint(done)
    assert "Kernel panic - not syncing: sysrq triggered crash" in complaint(done)
    assert 10 <= len(done.stderr.splitlines()) <= 22 and "Call Trace" not in complaint(done)
    assert done.stdout == "before\n"


@pytest.mark.privileged
@pytest.mark.guest
def test_a_command_and_a_boot_that_take_too_long_are_ended():
    before = registered()
    assert "sleep 600 did not end within 2 s" in complaint(guest("--seconds", "2", "--", "sleep", "600"))
    assert "did not boot within 1 s" in complaint(guest("--boot-seconds", "1", "--", "true"))
    wait_until(lambda: registered() <= before, "nothing of it is registered; guests beside it end, too", patient(120))


@pytest.mark.privileged
@pytest.mark.guest
def test_a_guest_that_powers_off_by_itself_has_no_status():
    assert "was lost while it ran busybox poweroff -f" in complaint(guest("--", "busybox", "poweroff", "-f"))


class Living:
    """A guest whose command has begun."""

    def __init__(self):
        before = registered()
        self.process = subprocess.Popen(
            [*LAB, "guest", "--cpus", "2", "--", "sh", "-c", "echo begun; sleep 600"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            text=True,
        )
        assert "begun\n" in self.process.stdout, self.process.communicate()  # first it may say what it cleaned up
        self.children = [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

        (self.directory,) = {path for path in registered() - before if self.has_made(path)}

    def has_made(self, directory: Path) -> bool:
        """Other guests may have begun meanwhile."""
        return bool(set(self.children) & set(processes_of(f"fastsocket-lab:{directory.name}")))


@pytest.mark.privileged
@pytest.mark.guest
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_guest_leaves_nothing(number):
    """By a signal that any verb of the lab handles, as it does SIGINT, and by one that only guests do."""
    living = Living()
    assert len(living.children) == 3
    with ending(living.children):
        living.process.send_signal(number)
        said = living.process.communicate(timeout=600)[1]
        assert living.process.returncode == 130, said
        assert "Traceback" not in said
    assert not living.directory.exists()


@pytest.mark.alone
@pytest.mark.privileged
@pytest.mark.guest
def test_a_killed_one_takes_its_processes_along_which_have_its_tag_and_clean_finds_the_rest():
    living = Living()
    known = set(living.children) & set(processes_of(f"fastsocket-lab:{living.directory.name}"))
    assert len(known) == 2  # QEMU and the share of the host's files; that of the results sees nothing but them
    with ending(living.children):
        living.process.kill()
        living.process.communicate()
    (leftover,) = [left for left in leftovers() if left.directory == living.directory]
    assert leftover.pids == []
    assert "removed what a killed run left" in lab("clean").stdout
    assert not leftover.directory.exists()


@pytest.mark.privileged
@pytest.mark.guest
def test_a_guest_without_its_files_is_lost():
    living = Living()
    shares = [pid for pid in living.children if Path(f"/proc/{pid}/exe").readlink().name == "virtiofsd"]
    os.kill(shares[0], signal.SIGKILL)
    _, said = living.process.communicate(timeout=600)
    assert living.process.returncode == 3
    assert "the guest was lost: " in said or "the guest was lost while" in said


@pytest.mark.privileged
@pytest.mark.guest
def test_a_shell_has_a_terminal_where_ctrl_c_interrupts_what_runs_in_it():
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*LAB, "guest", "--cpus", "2"],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "SHELL": "/bin/sh", "TERM": "vt100"},
    ) as process:
        os.close(theirs)
        screen = Screen(ours)
        screen.wait_for(r"# ")
        os.write(ours, b"tty; echo $TERM\r")
        screen.wait_for(r"/dev/hvc0\r*\nvt100")
        os.write(ours, b"sh -c 'echo sleeps $((40 + 1)); exec sleep 500'\r")
        screen.wait_for(r"sleeps 41")
        os.write(ours, b"\x03")
        screen.wait_for(r"\^C")
        os.write(ours, b"exit $((40 + 2))\r")
        assert process.wait(timeout=600) == 42, screen.seen
    os.close(ours)


class Screen:
    """What came from a terminal."""

    def __init__(self, descriptor: int):
        self._descriptor, self.seen = descriptor, ""

    def wait_for(self, pattern: str) -> None:
        while not re.search(pattern, self.seen):
            assert select.select([self._descriptor], [], [], 120)[0], self.seen
            self.seen += os.read(self._descriptor, 4096).decode(errors="replace")


# Kernels from elsewhere.


@pytest.fixture(scope="module")
def image() -> Path:
    """A kernel of the archive, unpacked."""
    return kernels.kernel("6.1").image


@pytest.mark.guest
def test_a_vmlinuz_has_its_version_inside_and_its_modules_beside_it(image):
    found = kernels.kernel(str(image))
    assert image.name == f"vmlinuz-{found.version}"
    assert (found.modules / "lib/modules" / found.version / "modules.dep").exists()


@pytest.mark.guest
def test_a_package_is_unpacked_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "KERNELS", tmp_path / "kernels")
    broken = tmp_path / "linux.deb"
    broken.write_bytes(b"!<arch>\nnonsense")
    with pytest.raises(GuestError, match="dpkg -x failed: "):
        kernels.kernel(str(broken))
    assert not any(kernels.KERNELS.iterdir())


@pytest.mark.guest
def test_a_package_of_ones_own_is_a_kernel(image, tmp_path, monkeypatch):
    tree, package = tmp_path / "tree", tmp_path / "linux-image-own.deb"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: linux-image-own\nVersion: 1\nArchitecture: amd64\nMaintainer: me\nDescription: own\n"
    )
    (tree / "boot").mkdir()
    shutil.copy(image, tree / "boot")
    subprocess.run(["dpkg-deb", "--build", str(tree), str(package)], check=True, capture_output=True)
    monkeypatch.setattr(kernels, "KERNELS", tmp_path / "kernels")
    found = kernels.kernel(str(package))
    assert found.image.read_bytes() == image.read_bytes() and found.modules is None
    assert kernels.kernel(str(package)) == found


@pytest.mark.guest
def test_acceleration_is_tried_once_for_each_boot_of_the_host(monkeypatch, tmp_path, image):
    monkeypatch.setattr(acceleration, "ANSWER", tmp_path / "answer")
    found = acceleration.choose(None, kernels.kernel("6.1"))
    assert found[0] in ("kvm", "tcg")
    assert (tmp_path / "answer").read_text().startswith(acceleration.BOOT_ID.read_text())
    (tmp_path / "answer").write_text(f"{acceleration.BOOT_ID.read_text()}told so")
    assert acceleration.choose(None, kernels.kernel("6.1")) == ("tcg", "told so")
    (tmp_path / "answer").write_text("another boot\ntold so")
    assert acceleration.choose(None, kernels.kernel("6.1")) == found


# What the guests are for.


@pytest.mark.privileged
@pytest.mark.guest
def test_debians_own_kernel_takes_every_program_and_keeps_connections_local():
    """The smallest row of the matrix that means something."""
    checks = "; ".join(f"{sys.executable} -m guest.checks.{check}" for check in ("programs", "locality nginx"))
    done = lab("guest", "--kernel", "6.1", "--cpus", "3", "--", "sh", "-c", checks, cwd=ROOT)
    programs, locality = map(json.loads, done.stdout.splitlines())
    assert programs["ok"] and locality["ok"], (programs, locality, done.stderr)


@pytest.mark.slow
@pytest.mark.privileged
@NEEDS_TWO_CPUS
@pytest.mark.parametrize("check", ["doctor", "programs", "status", "locality nginx", "measure", "balance"])
def test_what_guests_are_asked_holds_on_this_machine(check):
    done = subprocess.run(
        [sys.executable, "-m", *f"guest.checks.{check}".split()], cwd=ROOT, capture_output=True, text=True
    )
    assert json.loads(done.stdout)["ok"], (done.stdout, done.stderr)


@pytest.mark.privileged
@pytest.mark.guest
@pytest.mark.timeout(24 * 3600)
def test_every_check_holds_on_every_kernel_and_machine(is_long):
    if not is_long:
        pytest.skip("--long asks every check on every kernel and machine, for hours: python3 -m guest.matrix")
    done = subprocess.run([sys.executable, "-m", "guest.matrix"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# The matrix and its page.

ANSWERS = {
    "6.1/3/doctor": {"ok": True, "said": "ok; without a | b"},
    "6.12/8/nic": {"ok": False, "said": "rss: 3 of 100"},
}


@pytest.fixture
def answers(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "ANSWERS", tmp_path)
    kept = matrix.Answers("0123456")
    for cell in cells():
        if cell.name in ANSWERS:
            kept.keep(cell, ANSWERS[cell.name])
    return kept


def cells() -> list[matrix.Cell]:
    return [
        matrix.Cell(kernel, machine, check)
        for kernel in ("6.1", "6.12")
        for machine in matrix.MACHINES
        for check in matrix.CHECKS
    ]


def test_an_answer_is_kept_for_its_commit_and_one_of_a_changed_checkout_is_not_trusted(answers):
    assert {cell.name for cell in cells() if answers.has(cell)} == set(ANSWERS)
    changed = matrix.Answers("0123456-dirty")
    changed.keep(cells()[0], {"ok": True, "said": ""})
    assert changed.of(cells()[0]) and not changed.has(cells()[0])
    assert not any(matrix.Answers("7654321").has(cell) for cell in cells())


def test_the_page_has_each_answer_in_its_place(answers):
    matrix.Answers("7654321").keep(
        next(cell for cell in cells() if cell.name == "6.1/8/doctor"), {"ok": True, "said": "ok"}
    )
    shown = matrix.page({"6.1": "6.1.0-56", "6.12": "6.12.9"}, answers)
    head, _, *rows = [line.split(" | ") for line in shown.splitlines() if line.startswith("|")][
        : 2 + len(matrix.CHECKS)
    ]
    assert [row.count("not run |") + row.count("not run") for row in rows[1:2]] == [6]
    assert head[2] == "6.1.0-56, 3 CPUs" and rows[0][2] == "ok; without a \\| b"
    assert head[4] == "6.12.9, 8 CPUs" and rows[-1][4] == "**no: rss: 3 of 100**"
    assert "the newest kernel that the archive has is 6.12.9" in shown.lower()
    assert "Commits: 0123456 (2 cells), 7654321 (1 cells)." in shown


def test_the_page_and_its_answers_do_not_change_the_checkout_of_which_it_tells(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    monkeypatch.setattr(matrix, "PAGE", tmp_path / "docs" / "kernels.md")
    monkeypatch.setattr(matrix, "ANSWERS", tmp_path / "kernels")
    for name in ("docs/kernels.md", "kernels/answer.json", "code.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before\n")
    git("init", "--quiet")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "first")
    matrix.PAGE.write_text("after\n")
    (matrix.ANSWERS / "answer.json").write_text("after\n")
    assert not matrix.commit().endswith(matrix.CHANGED)
    (tmp_path / "code.py").write_text("after\n")
    assert matrix.commit().endswith(matrix.CHANGED)


@pytest.mark.parametrize(
    "only, number", [("6.1/3/doctor", 1), ("6.12//nic", 3), ("//doctor", 6), ("6.1/8", 11), ("5.10", 0)]
)
def test_cells_are_chosen_by_kernel_machine_and_check(only, number):
    assert sum(cell.is_chosen(only) for cell in cells()) == number


@pytest.mark.privileged
@pytest.mark.guest
def test_a_cell_is_asked_in_a_guest_once_and_the_page_says_its_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(matrix, "KERNELS", ("6.1",))
    monkeypatch.setattr(matrix, "MACHINES", {"3": ["--cpus", "3"]})
    monkeypatch.setattr(matrix, "ANSWERS", tmp_path)
    monkeypatch.setattr(matrix, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(matrix, "commit", lambda: "0123456")
    assert matrix.main(["--only", "//doctor"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^6\.1/3/doctor: ok, \d+ s: ok", said) and "1 asked, 0 known" in said
    assert "| `lab.py doctor` | ok" in matrix.PAGE.read_text()
    assert matrix.main(["--only", "//doctor"]) == 0
    assert "0 asked, 1 known" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        matrix.main(["--only", "9.9"])
    assert ended.value.code == 2 and "--only 9.9 chooses nothing: such as 6.1/3/doctor" in capsys.readouterr().err


def test_a_guest_that_is_lost_is_an_answer():
    lost = matrix.said(3, "begun\n", "guest: Linux 6.1\nlab.py: the guest did not boot: panic\n[ 1.0] x\n")
    assert lost == {"ok": False, "said": "lab.py: the guest did not boot: panic"}
    fine = matrix.said(0, 'noise\n{"ok": true, "said": "5 of 5"}\n', "guest: Linux 6.1\n")
    assert fine == {"ok": True, "said": "5 of 5"}
