"""Run a command that may not make some system calls: forbidding.py (kill|refuse) NUMBER,NUMBER COMMAND …

A seccomp filter, as containers and systemd units have them (seccomp(2)); it stays over exec, and for all children.
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # classic BPF, linux/bpf_common.h
ALLOW, KILL_PROCESS, ERRNO_EPERM = 0x7FFF0000, 0x80000000, 0x00050001
NUMBER_OFFSET = 0  # of nr in struct seccomp_data


def instruction(code: int, if_true: int, if_false: int, operand: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def forbid(numbers: list[int], action: int) -> None:
    steps = [instruction(LOAD_WORD, 0, 0, NUMBER_OFFSET)]
    steps += [instruction(JUMP_IF_EQUAL, len(numbers) - index, 0, number) for index, number in enumerate(numbers)]
    steps += [instruction(RETURN, 0, 0, ALLOW), instruction(RETURN, 0, 0, action)]
    program = b"".join(steps)
    memory = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(steps), ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


forbid([int(number) for number in sys.argv[2].split(",")], KILL_PROCESS if sys.argv[1] == "kill" else ERRNO_EPERM)
os.execvp(sys.argv[3], sys.argv[3:])
