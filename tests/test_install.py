"""Installing from the checkout and as Debian packages: what comes, that it works, and that it goes again."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness.commands import assert_one_line, lab
from tests.harness.waiting import wait_until

ROOT = Path(__file__).parent.parent
MIRROR = "http://deb.debian.org/debian"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# Of a directory a root without a network, in which a command runs.
ALONE = """
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t sysfs sys sys
mount --rbind /dev dev
mkdir old
pivot_root . old
umount -l old
cd "$2"
shift 2
exec "$@"
"""
BUILDS = ("build-essential", "debhelper", "clang", "libbpf-dev", "python3", "python3-pip", "lintian", "man-db")


def run(*command: str | Path, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def files_in(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def generated(what: str) -> str:
    return run(sys.executable, "-m", "fastsocket.manual", what, cwd=ROOT)


def test_the_library_is_installed_alone_and_switched_on_nowhere(tmp_path):
    run("make", "-C", ROOT / "fastsocket", "install-library", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    assert files_in(tmp_path) == {"usr/lib/fastsocket/libfsocket.so"}
    assert (tmp_path / "usr/lib/fastsocket/libfsocket.so").stat().st_mode & 0o777 == 0o644
    run("make", "-C", ROOT / "fastsocket", "uninstall", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    assert files_in(tmp_path) == set()


@pytest.mark.needs("man")
def test_the_manual_page_has_every_verb_and_option_and_nothing_that_man_warns_of(tmp_path):
    page = tmp_path / "fastsocket.1"
    page.write_text(generated("man"))
    environment = {**os.environ, "MANWIDTH": "120", "LC_ALL": "C.UTF-8"}
    shown = subprocess.run(["man", "--warnings=w", "-l", page], capture_output=True, text=True, env=environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    for verb in ("run", "check", "status", "nic", "path"):
        told = run(sys.executable, "-m", "fastsocket", verb, "--help", cwd=ROOT)
        assert f"fastsocket {verb}" in shown.stdout
        assert all(option in shown.stdout for option in re.findall(r"--[a-z][a-z-]+", told) if option != "--help")


def test_bash_completes_verbs_and_options():
    script = 'source /dev/stdin; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fastsocket_completion fastsocket'
    for words, completed in ((("st",), "status"), (("run", "--answer"), "--answer-with-fin")):
        command = ["bash", "-c", f'{script}; echo "${{COMPREPLY[@]}}"', "bash", "fastsocket", *words]
        path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        assert run(*command, input=generated("bash"), env=path).split() == [completed]


def test_zsh_finds_its_file_by_the_first_line():
    assert generated("zsh").startswith("#compdef fastsocket\n")


def test_the_commands_libraries_are_those_that_the_tests_use():
    """With the same hashes: requirements-command.txt is a part of requirements.txt, but for its remarks."""
    whole, part = ((ROOT / name).read_text() for name in ("requirements.txt", "requirements-command.txt"))
    locked = set(re.findall(r"^(\S+==.*|    --hash=\S+)", part, re.MULTILINE))
    assert len(locked) > 20
    assert locked <= set(re.findall(r"^(\S+==.*|    --hash=\S+)", whole, re.MULTILINE))


# ---- Debian packages -------------------------------------------------------------------------------------------------


class Root:
    """A minimal Debian in a directory."""

    def __init__(self, directory: Path):
        self.directory = directory

    @contextmanager
    def entered(self) -> Iterator[None]:
        """With /proc, /sys, and the network as it is here; no service starts."""
        for file in ("/etc/resolv.conf", CERTIFICATES):
            (self.directory / file[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, self.directory / file[1:])
        policy = self.directory / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        with ExitStack() as mounted:
            for kind, name in (("proc", "proc"), ("sysfs", "sys")):
                run("mount", "-o", "ro", "-t", kind, kind, self.directory / name)
                mounted.callback(run, "umount", self.directory / name)
            yield

    def run(self, command: str) -> str:
        settings = [f"PIP_CERT={CERTIFICATES}", "DEBIAN_FRONTEND=noninteractive"]
        return run("chroot", self.directory, "env", *settings, "sh", "-ec", command)

    def install(self, *packages: str) -> None:
        self.run(f"apt-get update -q && apt-get install -q -y --no-install-recommends {' '.join(packages)}")

    def files(self) -> set[str]:
        """All that packages may leave behind."""
        return {name for top in ("etc", "opt", "root", "usr", "var") for name in files_in(self.directory / top)}


@pytest.fixture(scope="module")
def base(tmp_path_factory, is_long) -> Path:
    if not is_long or not shutil.which("debootstrap"):
        pytest.skip("takes some minutes, the network and debootstrap: --long")
    directory = tmp_path_factory.mktemp("debian") / "base"
    run("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", directory, MIRROR)
    return directory


@pytest.fixture
def fresh(base, tmp_path) -> Iterator[Root]:
    run("cp", "-a", base, tmp_path / "root")
    root = Root(tmp_path / "root")
    with root.entered():
        yield root


@pytest.fixture(scope="module")
def packages(base, tmp_path_factory) -> list[Path]:
    """Built, and looked at by lintian, in a Debian of their own."""
    directory = tmp_path_factory.mktemp("packages") / "root"
    run("cp", "-a", base, directory)
    root, source = Root(directory), directory / "src" / "fastsocket"
    source.mkdir(parents=True)
    run("sh", "-c", f"git ls-files -coz --exclude-standard | xargs -0 tar c | tar x -C {source}", cwd=ROOT)
    with root.entered():
        root.install(*BUILDS)
        root.run("cd /src/fastsocket && dpkg-buildpackage -b -us -uc")
        root.run("cd /src && lintian --allow-root --fail-on error,warning *.changes")
    return [path for path in source.parent.glob("*.deb") if "dbgsym" not in path.name]


def assert_accelerated(root: Root, server: str, fastsocket: str) -> None:
    """The server, in a network of its own, has a worker that accepts from a local listener."""
    command = ["unshare", "--net", "chroot", root.directory, "sh", "-ec", server]
    with subprocess.Popen(command) as started:
        try:
            wait_until(lambda: "ms ago" in root.run(f"{fastsocket} status {started.pid} || true"), "a worker adopted")
        finally:
            started.terminate()
    assert started.returncode == 0


@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.timeout(1800)
def test_the_wheel_is_installed_by_pip_on_a_machine_without_a_compiler(fresh, tmp_path):
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", tmp_path / "made", ROOT)
    (wheel,) = (tmp_path / "made").iterdir()
    shutil.copy(wheel, fresh.directory / "tmp")
    fresh.install("nginx-light", "python3-venv")
    fresh.run(f"python3 -m venv /opt/made && /opt/made/bin/pip install -q /tmp/{wheel.name}")
    assert_accelerated(fresh, "exec /opt/made/bin/fastsocket run -- nginx -g 'daemon off;'", "/opt/made/bin/fastsocket")


def commands_of_the_readme() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[:2]


@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.timeout(3600)
def test_the_two_commands_of_the_readme_need_nothing_else(fresh):
    """The first in a short form: one workload, core and block."""
    there = fresh.directory / "lab"
    there.mkdir()
    run("sh", "-c", f"git ls-files -coz --exclude-standard | xargs -0 tar c | tar x -C {there}", cwd=ROOT)
    sweep, preload = commands_of_the_readme()
    assert sweep.startswith("python3 lab.py --yes sweep") and "LD_PRELOAD" in preload
    fresh.install("python3")
    short = "--workload nginx --cores 1 --blocks 1 --seconds 1 --out /lab/run"
    within = ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", ALONE, "sh", fresh.directory]
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "PIP_CERT": CERTIFICATES}
    assert "report: /lab/run/report.html" in run(*within, "/lab", "sh", "-ec", f"{sweep.strip()} {short}", env=path)
    preload = preload.strip().replace(" nginx", " nginx -g 'daemon off;'").replace("\n", "; exec env ")
    assert_accelerated(fresh, f"cd /lab; {preload}", "cd /lab; .venv/bin/python -m fastsocket")


@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.timeout(3600)
def test_packages_are_installed_used_and_purged(fresh, packages):
    fresh.install("nginx-light", "python3")
    before = fresh.files()
    for package in packages:
        shutil.copy(package, fresh.directory / "tmp")
    fresh.install("/tmp/*.deb")
    assert not (fresh.directory / "etc/ld.so.preload").exists()
    assert "libfsocket" not in fresh.run("cat /proc/self/maps")
    assert "fsocket" not in "".join(path.name for path in (fresh.directory / "etc").rglob("*"))
    assert fresh.run("fastsocket path") == "/usr/lib/fastsocket/libfsocket.so\n"
    assert "can be accelerated" in fresh.run("fastsocket check nginx")
    assert_accelerated(fresh, "exec fastsocket run -- nginx -g 'daemon off;'", "fastsocket")
    fresh.run("apt-get purge -q -y --autoremove fastsocket libfsocket")
    assert not [name for name in fresh.files() - before if "fsocket" in name or "fastsocket" in name]


@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.timeout(1800)
def test_a_pack_installs_and_measures_without_a_network(fresh, tmp_path):
    packed, there = tmp_path / "lab.tar", fresh.directory / "lab"
    short = ["--workload", "nginx", "--cores", "1", "--blocks", "1", "--seconds", "1"]
    assert "is for Debian GNU/Linux" in run(sys.executable, ROOT / "lab.py", "pack", packed)
    fresh.install("python3")
    there.mkdir()
    run("tar", "-xf", packed, "-C", there)
    alone = ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-ec", ALONE, "sh", fresh.directory]
    sweep = ["python3", "lab.py", "--yes", "sweep", *short, "--out", "/lab/run"]
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    assert "report: /lab/run/report.html" in run(*alone, "/lab/fastsocket-lab", *sweep, env=path)
    assert (there / "run" / "report.html").exists()


def test_a_pack_that_cannot_be_written_is_one_line(tmp_path):
    assert_one_line(lab("pack", str(tmp_path / "no folder" / "lab.tar")), 2, "cannot write", "no folder")
    assert_one_line(lab("pack", str(tmp_path)), 2, "cannot write")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_is_installed_from_the_checkout_and_removed(tmp_path, is_long):
    if not is_long:
        pytest.skip("takes a minute and the network: --long")
    where = [f"PREFIX={tmp_path}", f"PYTHON={sys.executable}"]
    run("make", "-C", ROOT / "fastsocket", "install", *where)
    command = tmp_path / "bin" / "fastsocket"
    assert run(command, "path") == f"{tmp_path}/lib/fastsocket/libfsocket.so\n"
    assert "can be accelerated" in run(command, "check", "nginx")
    assert (tmp_path / "share/man/man1/fastsocket.1").read_text().startswith(".TH FASTSOCKET 1")
    run("make", "-C", ROOT / "fastsocket", "uninstall", *where)
    assert files_in(tmp_path) == set()
