"""Run a command on a kernel that has no BPF: every bpf() of it, and of its children, answers ENOSYS (seccomp(2)).

python3 -m tests.harness.without_bpf COMMAND …
"""

import ctypes
import errno
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2  # <linux/prctl.h>, <linux/seccomp.h>
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # <linux/bpf_common.h>
BPF_NUMBER = {"x86_64": 321, "aarch64": 280}[os.uname().machine]  # of the system call
FILTER = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (LOAD_WORD, 0, 0, 0),  # its number comes first in struct seccomp_data
        (JUMP_IF_EQUAL, 0, 1, BPF_NUMBER),
        (RETURN, 0, 0, RET_ERRNO | errno.ENOSYS),
        (RETURN, 0, 0, RET_ALLOW),
    )
)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def main(command: list[str]) -> None:
    libc, program = ctypes.CDLL(None, use_errno=True), _Program(len(FILTER) // 8, FILTER)
    for wish in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*wish):
            raise OSError(ctypes.get_errno(), "prctl")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
