"""Guests: machines under QEMU with another kernel and other CPUs, which use this machine's files.

A guest sees the host's files read-only, below an overlay that disappears with the guest. Files that it puts into the
results folder stay on the host. A guest runs one command, whose exit status the host gets.
"""


class GuestError(Exception):
    """A guest cannot run here, or was lost. The message says why, and may end with the last lines of its console."""

    exit_status = 3


class GuestUsageError(GuestError):
    """A guest of this kind cannot be made; the message says what is wrong, and what would be right."""

    exit_status = 2
