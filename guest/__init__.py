"""Guests: a machine with other CPUs and another kernel under QEMU, on this machine's files.

The guest sees the host's files read-only, below an overlay that is gone with the guest. What it puts into the results
folder comes back. Its command ends with an exit status, as if it had run here.
"""


class GuestError(Exception):
    """There is no guest here, or it was lost; the message says why. It may bring the end of the guest's console."""

    exit_status = 3


class GuestUsageError(GuestError):
    """Guests like that cannot be made; the message says what is wrong and what is right."""

    exit_status = 2
