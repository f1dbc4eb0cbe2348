"""Another machine as the load generator's host, over SSH.

One SSH connection lasts as long as the host is used. Each command is a session of it (ssh_config(5), ControlMaster).
SSH asks no questions: the user's key and the host's key must be in order beforehand. A program on the host is killed
when the input of its session ends. The input is a FIFO that only this process holds open, so the program ends with the
session, with the connection, or with this process.
"""

import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from itertools import takewhile
from pathlib import Path

from fastsocket.steering.cpus import parse_cpus
from topologies.namespace import Namespace

OPTIONS = {  # these options override root's own SSH configuration
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ControlPersist": "no",
    "RemoteCommand": "none",
    "LogLevel": "INFO",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "2",
    "ServerAliveCountMax": "3",
}
REMEDIES = {
    "Permission denied": "ssh-copy-id {0} takes root's key there",
    "Host key verification failed": "ssh {0} shows the host's key, to be compared and accepted once",
}
PACKAGES = {"taskset": "util-linux", "timeout": "coreutils", "bash": "bash"}  # the programs that this module runs there
SSH_FAILED = 255  # ssh(1), EXIT STATUS
# The session that keeps the connection prints what the host is and lacks. In the end it removes its directory.
_KEEP = """\
directory=$(mktemp -d) || exit
echo "$directory"; uname -srm; sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status
for program; do command -v "$program" >/dev/null || echo "$program"; done; echo
read -r _; rm -rf "$directory"
"""
_RUN = """\
exec 3<&0; "$@" 3<&- & program=$!
{ read -r _ <&3; kill -KILL $program; } >/dev/null 2>&1 & watch=$!
wait $program; status=$?; kill -KILL $watch 2>/dev/null; exit $status
"""
_PUT = 'cat >"$0" && chmod 755 "$0"'
_ASK = 'exec 3<>"/dev/tcp/$0/$1" && printf %s "$2" >&3 && exec cat <&3'


class HostError(Exception):
    """The other machine cannot be used; the message names it, and says what to do."""

    exit_status = 3


class SshHost(AbstractContextManager["SshHost"]):
    """Another machine as a topologies.client.Client. The end of the with block ends all programs that it runs there.

    name: as ssh takes it, such as user@host. near: the host here in whose namespaces ssh runs. directory: for our files
    here. programs: the programs that the machine must have, each with its Debian package. Raises HostError, as its
    methods do when the connection is lost.
    """

    def __init__(self, name: str, near: Namespace, directory: Path, programs: Mapping[str, str]):
        self.name, self.pid = name, near.pid
        self._fifo, self._socket, self._log = (directory / part for part in ("ssh.in", "ssh", "ssh.log"))
        self._deployed: dict[Path, str] = {}
        packages = {**programs, **PACKAGES}
        with ExitStack() as undo:
            os.mkfifo(self._fifo)
            undo.callback(os.close, os.open(self._fifo, os.O_RDWR))
            self._connection = undo.enter_context(self._connected(packages))
            undo.callback(self._connection.terminate)
            told = [line.strip() for line in takewhile(str.strip, self._connection.stdout or [])]
            if told and not told[0].startswith("/"):
                raise HostError(f"{name} prints {told[0]!r} by itself: its shell's start-up files may print nothing")
            if len(told) < 3:
                raise HostError(self._why_not())
            self._directory, self.system, cpus, *missing = told
            for program in missing:
                package = packages[program]
                raise HostError(f"{program} is not on {name}: install Debian's package {package} there")
            self.cpus = list(parse_cpus(cpus))
            self._undo = undo.pop_all()

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def command(self, cpus: list[int], argv: list[str]) -> list[str]:
        self._require_connection()
        placed = ["taskset", "--cpu-list", ",".join(map(str, cpus)), *argv]
        return self._held(self._ssh(["sh", "-c", _RUN, "sh", *placed]))

    def deploy(self, file: Path) -> str:
        if file not in self._deployed:
            there = f"{self._directory}/{file.name}"
            self._said(["sh", "-c", _PUT, there], f"does not take {file.name}", file.read_bytes())
            self._deployed[file] = there
        return self._deployed[file]

    def ask(self, address: str, port: int, request: bytes, seconds: float) -> bytes:
        asking = ["timeout", f"{seconds}", "bash", "-c", _ASK, address, f"{port}", request.decode()]
        cannot = f"has no answer from {address}, port {port}, within {seconds} s; check --server-address, and firewalls"
        return self._said(asking, cannot)

    def first_line(self, argv: list[str]) -> str:
        """The first line that a program on the host prints, whatever its exit status is."""
        said = self._said(["sh", "-c", '"$@" 2>&1 | head -n 1', "sh", *argv], f"cannot run {argv[0]}")
        return said.decode().strip()

    def _said(self, argv: list[str], cannot: str, given: bytes = b"") -> bytes:
        """What a short command on the host prints. cannot: what to say when the command fails. Raises HostError."""
        self._require_connection()
        done = subprocess.run([*self._inside(), *self._ssh(argv)], input=given, capture_output=True)
        if done.returncode == SSH_FAILED:
            with suppress(subprocess.TimeoutExpired):
                self._connection.wait(1)  # its log says why the connection ended
            self._require_connection()
        if done.returncode:
            raise HostError(f"{self.name} {cannot}: {_last_line(done.stderr.decode(errors='replace'))}")
        return done.stdout

    def _connected(self, programs: Iterable[str]) -> "subprocess.Popen[str]":
        keep = self._ssh(["sh", "-c", _KEEP, "sh", *programs], master="yes")
        with self._log.open("w") as log:
            return subprocess.Popen(
                self._held(keep), stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )

    def _ssh(self, argv: list[str], master: str = "no") -> list[str]:
        said = {**OPTIONS, "ControlPath": self._socket, "ControlMaster": master}
        options = [word for name, value in said.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-Tax", *options, "--", self.name, shlex.join(argv)]

    def _inside(self) -> list[str]:
        return ["mnexec", "-a", f"{self.pid}"]

    def _held(self, ssh: list[str]) -> list[str]:
        """The command line that runs ssh with the FIFO as its input."""
        return [*self._inside(), "sh", "-c", 'exec "$@" <"$0"', f"{self._fifo}", *ssh]

    def _require_connection(self) -> None:
        if self._connection.poll() is not None:
            raise HostError(f"the connection to {self.name} was lost: {self._last_words()}; mend it, then --resume")

    def _why_not(self) -> str:
        words = self._last_words()
        remedies = [remedy for complaint, remedy in REMEDIES.items() if complaint in words]
        remedy = (remedies or ["ssh {0} true must work without a question"])[0]
        return f"no connection to {self.name}: {words}; {remedy.format(self.name)}"

    def _last_words(self) -> str:
        return _last_line(self._log.read_text(errors="replace")).rstrip(".")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
