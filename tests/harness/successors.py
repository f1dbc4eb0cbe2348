"""How servers hand over to new workers, and to a new binary."""

import os
import signal
from collections.abc import Callable

from fastsocket.processes import children
from tests.harness.servers import Served, is_running
from tests.harness.waiting import wait_until


def replace_workers(one: Served, ask: Callable[[], None]) -> None:
    old = set(children(one.pid))
    ask()
    wait_until(lambda: not any(map(is_running, old)), "the old workers have ended")
    wait_until(one.is_ready, "new workers serve")


def reload_nginx(one: Served) -> None:
    replace_workers(one, lambda: os.kill(one.pid, signal.SIGHUP))


def upgrade_nginx(one: Served) -> None:
    """https://nginx.org/en/docs/control.html, "Upgrading Executable on the Fly"."""
    old = one.pid
    start_new_binary(one)
    os.kill(old, signal.SIGWINCH)
    finish_old_binary(one, old)


def start_new_binary(one: Served) -> None:
    os.kill(one.pid, signal.SIGUSR2)
    wait_until(lambda: (one.directory / "nginx.pid.oldbin").exists() and one.is_ready(), "the new binary serves")


def finish_old_binary(one: Served, old: int) -> None:
    wait_until(lambda: set(children(old)) <= {one.pid}, "the old workers have ended")
    os.kill(old, signal.SIGQUIT)
    wait_until(lambda: not is_running(old), "the old master has ended")
