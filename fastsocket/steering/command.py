"""Run a tool of the system. All tools are run here, so that tests can replay a tool that is not installed."""

import subprocess
from collections.abc import Sequence


class Refused(Exception):
    """A tool, a driver or the kernel refused; the message has its words."""

    exit_status = 3


def run(command: Sequence[str]) -> str:
    """Run a command, and return what it prints. Raises Refused when the command fails or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise Refused(f"{command[0]}: {error.strerror}: apt-get install {command[0]}") from error
    if done.returncode:
        raise Refused(f"{' '.join(command)}: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout
