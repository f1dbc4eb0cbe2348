"""Find in libbpf's log, which often has hundreds of lines, why BPF was refused, and what helps.

The patterns match the words of libbpf 1.1 (src/libbpf.c, src/btf.c) and of the kernel's verifier.
"""

import errno
import os
import re
from enum import Enum

_PROGRAM = re.compile(r"prog '(?P<name>[^']+)'")
_TRACEPOINT = re.compile(r"failed to find kernel BTF type ID of '(?P<name>[^']+)'")
_NO_BTF = re.compile(r"failed to find valid kernel BTF|kernel BTF is missing|Error loading vmlinux BTF")
_LOG_BEGINS, _LOG_ENDS = "-- BEGIN PROG LOAD LOG --", "-- END PROG LOAD LOG --"
_STATISTICS = "processed "  # the verifier's last line begins so; it has statistics and says nothing about the cause


class Cause(Enum):
    """Why BPF was refused. The value says what helps, where that is known."""

    PRIVILEGE = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    NO_BPF = "boot a kernel with CONFIG_BPF_SYSCALL, as Debian's are"
    NO_BTF = "boot a kernel with CONFIG_DEBUG_INFO_BTF, as Debian's are"
    NO_TRACEPOINT = "boot a later kernel"
    VERIFIER = "boot another kernel: the verifiers of Linux 6.1, 6.12 and 6.18 take all programs"
    NO_LIBBPF = "apt-get install libbpf1"
    STALE = "build the BPF programs again: make -C fastsocket clean all"
    OTHER = ""


def cause_of(code: int, log: list[str]) -> Cause:
    """The cause of a refusal, from its error number and libbpf's log."""
    if _within_log(log):
        return Cause.VERIFIER
    if _found(_NO_BTF, log):
        return Cause.NO_BTF
    if _found(_TRACEPOINT, log):
        return Cause.NO_TRACEPOINT
    return {errno.EPERM: Cause.PRIVILEGE, errno.EACCES: Cause.PRIVILEGE, errno.ENOSYS: Cause.NO_BPF}.get(
        code, Cause.OTHER
    )


def telling_line(code: int, log: list[str]) -> str:
    """One line that says why BPF was refused, from the error number and libbpf's log."""
    cause = cause_of(code, log)
    if cause is Cause.VERIFIER:
        return f"the verifier refuses {_refused_program(log)}: {_within_log(log)[-1]}"
    if cause is Cause.NO_TRACEPOINT and (found := _found(_TRACEPOINT, log)):
        return f"this kernel has no tracepoint {found['name']}"
    return "this kernel does not describe its types (BTF)" if cause is Cause.NO_BTF else os.strerror(code)


def _found(pattern: re.Pattern[str], log: list[str]) -> re.Match[str] | None:
    return next(filter(None, map(pattern.search, log)), None)


def _refused_program(log: list[str]) -> str:
    begin = next(line for line in log if _LOG_BEGINS in line)
    return named["name"] if (named := _PROGRAM.search(begin)) else "a program"


def _within_log(log: list[str]) -> list[str]:
    """The lines that the verifier wrote about the program that it refused, without blank lines and statistics."""
    begins = [number for number, line in enumerate(log) if _LOG_BEGINS in line]
    if not begins:
        return []
    said = log[begins[-1] + 1 :]
    ends = [number for number, line in enumerate(said) if _LOG_ENDS in line]
    return [line for line in said[: ends[0] if ends else None] if line.strip() and not line.startswith(_STATISTICS)]
