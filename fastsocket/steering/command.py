"""Running a tool of the system: the one place, so that tests can replay one that is not there."""

import subprocess
from collections.abc import Sequence


class Refused(Exception):
    """A tool, a driver or the kernel said no; the message has its words."""

    exit_status = 3


def run(command: Sequence[str]) -> str:
    """What it prints. Raises Refused."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise Refused(f"{command[0]}: {error.strerror}: apt-get install {command[0]}") from error
    if done.returncode:
        raise Refused(f"{' '.join(command)}: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout
