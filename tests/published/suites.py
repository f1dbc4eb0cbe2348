"""The suites that we know: where each comes from, and the units, run one by one, that it consists of."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.published.outcomes import Result, read_junit, read_tap

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastsocket" / "suites"
APT_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")

NGINX_TESTS = "https://github.com/nginx/nginx-tests"
NGINX_TESTS_COMMIT = "fd399c8cfbd730679aa99258564abdb49a3c29bf"  # of the time of Debian 12's nginx 1.22
NGINX_MODULES = Path("/usr/lib/nginx/modules")
NGINX_DYNAMIC = ("http_geoip", "http_image_filter", "http_perl", "http_xslt_filter", "mail", "stream", "stream_geoip")
# Parsing, caching and rates: many minutes that say little about sockets.
NGINX_LONG = re.compile(r"h2|grpc|.*(cache|resolver|limit_rate)")

CPYTHON = (
    "test_epoll",
    "test_poll",
    "test_select",
    "test_socket",
    "test_socketserver",
    "test_asyncore",
    "test_asynchat",
    "test_httplib",
    "test_httpservers",
    "test_ftplib",
    "test_smtplib",
    "test_smtpd",
    "test_telnetlib",
    "test_xmlrpc",
    "test_wsgiref",
    "test_os",
    "test_posix",
    "test_fork1",
    "test_openpty",
    "test_pty",
)
CPYTHON_LONG = (
    "test_selectors",
    "test_signal",
    "test_subprocess",
    "test_ssl",
    "test_asyncio",
    "test_imaplib",
    "test_poplib",
    "test_docxmlrpc",
    "test_urllib2_localnet",
    "test_threading",
    "test_multiprocessing_fork",
    "test_multiprocessing_forkserver",
    "test_multiprocessing_spawn",
)
CPYTHON_HANGS = "*VSOCK*"  # in a virtual machine it waits for a host that has to answer

MEMCACHED_LONG = re.compile(r"extstore|.*extstore|slab|restart|lru|watcher|idle")


class SuiteError(Exception):
    """The suite cannot be had on this machine; the message says why and how to get it."""

    exit_status = 3


class NoSuchUnit(Exception):
    """No unit has the name that was asked for."""

    exit_status = 2


@dataclass(frozen=True)
class Unit:
    """A part of a suite that is run as one command, in a scratch directory of its own unless it names one."""

    name: str
    command: tuple[str, ...]
    read: Callable[[str, Path, int], Result]  # from the output, the scratch directory and the exit status
    arguments: tuple[str, ...] = ()
    select: str = ""  # the option, before all arguments, that chooses a test; without it the unit runs as a whole
    directory: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def command_for(self, tests: Sequence[str]) -> tuple[str, ...]:
        """The command that runs at least these tests; all of them if the list is empty."""
        chosen = tests if self.select else ()
        return self.command + tuple(word for test in chosen for word in (self.select, test)) + self.arguments


@dataclass(frozen=True)
class Suite:
    """How a suite is obtained, or found in the place that --source names, and cut into units."""

    summary: str
    units: Callable[[Path | None, bool], list[Unit]]


# ---- CPython: its package test -------------------------------------------------------------------------------------


def _cpython(interpreter: Path | None, long: bool) -> list[Unit]:
    python = str(interpreter or sys.executable)
    modules = _cpython_modules(python)
    return [cpython_unit(name, python) for name in CPYTHON + (CPYTHON_LONG if long else ()) if name in modules]


def cpython_unit(module: str, python: str = sys.executable) -> Unit:
    """A module of the package test. Only test_socketserver gets the resource network, and means loopback by it."""
    network = ("-u", "network") if module == "test_socketserver" else ()
    return Unit(
        module,
        (python, "-m", "test", "-v", "--junit-xml", "junit.xml"),
        _from_junit,
        select="-m",
        arguments=("--ignore", CPYTHON_HANGS, *network, module),
    )


def _cpython_modules(python: str) -> set[str]:
    found = subprocess.run([python, "-c", "import test.support; print(*test.__path__)"], capture_output=True, text=True)
    if found.returncode:
        raise SuiteError(
            f"{python} comes without its package test: apt-get install libpython3.11-testsuite, and name "
            "/usr/bin/python3 with --source"
        )
    return {path.stem for path in Path(found.stdout.strip()).iterdir()}


# ---- nginx-tests, against the nginx on PATH -----------------------------------------------------------------------


def _nginx(checkout: Path | None, long: bool) -> list[Unit]:
    nginx = _need_command("nginx", "nginx")
    missing = [name for name in NGINX_DYNAMIC if not (NGINX_MODULES / f"ngx_{name}_module.so").exists()]
    if missing:
        packages = " ".join(f"libnginx-mod-{name.replace('_', '-')}" for name in missing)
        raise SuiteError(f"Debian's nginx says that it has modules which are not installed: apt-get install {packages}")
    directory = checkout or _clone(NGINX_TESTS, NGINX_TESTS_COMMIT, CACHE / "nginx-tests")
    environment = {"TEST_NGINX_BINARY": nginx, "TEST_NGINX_MODULES": str(NGINX_MODULES)}
    if os.geteuid() == 0:  # its files are root's, so its workers have to be
        environment["TEST_NGINX_GLOBALS"] = "user root;"
    return [
        Unit(script.name, ("perl", str(script)), _from_tap, environment=environment)
        for script in _scripts(directory)
        if long or not NGINX_LONG.match(script.name)
    ]


def _clone(address: str, commit: str, into: Path) -> Path:
    if not into.exists():
        fresh = into.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        how = f"clone {address} where it can be reached, at {commit[:12]}, and name the checkout with --source"
        _get(["git", "clone", "--quiet", "--no-checkout", address, str(fresh)], how)
        _get(["git", "-C", str(fresh), "checkout", "--quiet", commit], how)
        fresh.rename(into)
    return into


# ---- memcached's t/, against Debian's memcached -------------------------------------------------------------------

# Its tests prefer Unix sockets, and pass an option that only a build with seccomp knows.
_MEMCACHED_WRAPPER = """\
#!/bin/bash
[ "$1" = -h ] && exec {memcached} -h > >(grep -v unix-socket)
exec {memcached} ${{@/relaxed_privileges/no_modern}}
"""
_WITHOUT_WATCHDOG = '#!/bin/sh\nshift\nexec "$@"\n'


def _memcached(source: Path | None, long: bool) -> list[Unit]:
    memcached = _need_command("memcached", "memcached")
    directory = source or _debian_source("memcached")
    _write_script(directory / "memcached-debug", _MEMCACHED_WRAPPER.format(memcached=memcached))
    _write_script(directory / "timedrun", _WITHOUT_WATCHDOG)
    return [
        Unit(script.name, ("perl", str(script)), _from_tap, directory=directory)
        for script in _scripts(directory / "t")
        if long or not MEMCACHED_LONG.match(script.name)
    ]


def _write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _debian_source(package: str) -> Path:
    """The upstream source of the version that is installed."""
    version = subprocess.run(["dpkg-query", "-Wf${Version}", package], capture_output=True, text=True).stdout
    into = CACHE / f"{package}-{version}"
    if not into.exists():
        fresh = into.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _download_source(package, version, fresh)
        archive = next(fresh.glob("*.orig.tar.*"))
        _get(["tar", "-xf", str(archive), "-C", str(fresh), "--strip-components=1"], f"is {archive} whole?")
        fresh.rename(into)
    return into


def _download_source(package: str, version: str, into: Path) -> None:
    """With package lists of our own, because a machine's rarely have sources in them."""
    how = f"run apt-get source {package} where sources can be had, and name the directory with --source"
    if not APT_SOURCES.exists():
        raise SuiteError(f"no {APT_SOURCES}, which says where packages come from: {how}")
    sources, lists = into / "apt" / "sources", into / "apt" / "lists"
    for directory in (sources, lists / "partial"):
        directory.mkdir(parents=True)
    (sources / APT_SOURCES.name).write_text(
        re.sub("^Types:.*$", "Types: deb-src", APT_SOURCES.read_text(), flags=re.MULTILINE)
    )
    apt = [
        "apt-get",
        "-q",
        "-o",
        "Dir::Etc::sourcelist=/dev/null",
        "-o",
        f"Dir::Etc::sourceparts={sources}",
        "-o",
        f"Dir::State::lists={lists}",
        "-o",
        "APT::Sandbox::User=root",
    ]
    _get([*apt, "update"], how)
    _get([*apt, "source", "--download-only", f"{package}={version}"], how, into)


# ---- what they share ----------------------------------------------------------------------------------------------


def _from_tap(output: str, scratch: Path, status: int) -> Result:
    return read_tap(output, status)


def _from_junit(output: str, scratch: Path, status: int) -> Result:
    return read_junit(scratch / "junit.xml", status)


def _scripts(directory: Path) -> Iterator[Path]:
    scripts = sorted(directory.resolve().glob("*.t"))
    if not scripts:
        raise SuiteError(f"no *.t in {directory}: is that a checkout of the suite?")
    yield from scripts


def _need_command(name: str, package: str) -> str:
    found = shutil.which(name)
    if not found:
        raise SuiteError(f"no {name} on PATH: apt-get install {package}")
    return found


def _get(command: list[str], how: str, directory: Path | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=directory)
    if done.returncode:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise SuiteError(f"{' '.join(command[:2])} failed ({said}): {how}")


SUITES = {
    "cpython": Suite("the interpreter's own package test; --source names another python", _cpython),
    "nginx": Suite("nginx-tests, by the authors of nginx; --source names a checkout", _nginx),
    "memcached": Suite("memcached's t/*.t, over TCP; --source names its source tree", _memcached),
}
