"""Read the command's arguments. Each value is checked when it is read; a wrong one gives one line and exit status 2."""

import os
import re
from collections.abc import Sequence

from fastsocket.launch import MAX_ONLY_PORTS
from fastsocket.steering.cpus import ONLINE, cpus_in, machine_cpus, parse_cpus

_PORT = re.compile(r"[0-9]{1,5}")
_RULE = re.compile(r"([0-9]{1,5})=([0-9]{1,5})")
LAST_PORT = 65535


class UsageError(Exception):
    """The command's arguments ask for something impossible."""

    exit_status = 2


def cpus(text: str | None) -> tuple[int, ...]:
    """The CPUs that --cpus names; without the option, all that the command itself may use. Raises UsageError."""
    if text is None:
        return tuple(sorted(os.sched_getaffinity(0)))
    try:
        named = parse_cpus(text, machine_cpus())
    except ValueError as error:
        raise UsageError(f"--cpus {_short(text)}: {error}") from None
    if absent := set(named) - set(cpus_in(ONLINE)):
        raise UsageError(f"--cpus {_short(text)}: {sorted(absent)} not online: {ONLINE} has those that are")
    return named


def port_rules(rules: Sequence[str]) -> dict[int, int]:
    """The rules of --port, such as "6379=1", as CPU by port. Raises UsageError."""
    found: dict[int, int] = {}
    for rule in rules:
        said = _RULE.fullmatch(rule)
        if not said:
            raise UsageError(f"--port {_short(rule)}: write PORT=CPU, as in 6379=1")
        port, cpu = _port("--port", said[1]), int(said[2])
        if port in found:
            raise UsageError(f"--port {port}={found[port]} and --port {rule}: name each port once")
        if cpu >= machine_cpus():
            raise UsageError(f"--port {rule}: there is no CPU {cpu}: they are numbered from 0 to {machine_cpus() - 1}")
        found[port] = cpu
    return found


def only_ports(ports: Sequence[str]) -> tuple[int, ...]:
    """The ports of --only as numbers. Raises UsageError."""
    if len(ports) > MAX_ONLY_PORTS:
        raise UsageError(f"--only: {len(ports)} ports, and the library knows {MAX_ONLY_PORTS} at most")
    found = tuple(_port("--only", port) for port in ports)
    if twice := [port for port in found if found.count(port) > 1]:
        raise UsageError(f"--only {twice[0]}: name each port once")
    return found


def _port(option: str, text: str) -> int:
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= LAST_PORT:
        raise UsageError(f"{option} {_short(text)}: ports are numbered from 1 to {LAST_PORT}")
    return int(text)


def _short(text: str) -> str:
    """An argument as an error message quotes it: cut after 60 characters, and in quotes where it has odd characters."""
    return text if re.fullmatch("[0-9,=-]{1,60}", text) else repr(text if len(text) <= 60 else f"{text[:60]}…")
