"""Filters of system calls, as containers and systemd units have them (seccomp(2)): exec and fork keep them."""

import ctypes
import os
import struct

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SYS_SECCOMP, SECCOMP_SET_MODE_FILTER = {"x86_64": 317, "aarch64": 277}[os.uname().machine], 1
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # classic BPF, linux/bpf_common.h
ALLOW, KILL_PROCESS, ERRNO_EPERM = 0x7FFF0000, 0x80000000, 0x00050001
NUMBER_OFFSET = 0  # of nr in struct seccomp_data


def instruction(code: int, if_true: int, if_false: int, operand: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def install(numbers: list[int], action: int, otherwise: int, how: str = "prctl") -> None:
    """how: by prctl(), or by syscall() as libseccomp does."""
    steps = [instruction(LOAD_WORD, 0, 0, NUMBER_OFFSET)]
    steps += [instruction(JUMP_IF_EQUAL, len(numbers) - index, 0, number) for index, number in enumerate(numbers)]
    steps += [instruction(RETURN, 0, 0, otherwise), instruction(RETURN, 0, 0, action)]
    program = b"".join(steps)
    memory = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(steps), ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    calls = {
        "prctl": lambda: libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0),
        "syscall": lambda: libc.syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, 0, header),
    }
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or calls[how]():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def forbid(numbers: list[int], action: int, how: str = "prctl") -> None:
    install(numbers, action, ALLOW, how)


def allow_only(numbers: list[int]) -> None:
    install(numbers, ALLOW, KILL_PROCESS)
