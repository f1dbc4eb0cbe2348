"""A worker is stopped in the middle of a trial, and goes on."""

import subprocess
from pathlib import Path

from bench.pause import paused
from tests.harness.waiting import wait_until


def state(pid: int) -> str:
    """Of proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_one_worker_of_a_server_is_stopped_and_goes_on():
    with subprocess.Popen(["sh", "-c", "sleep 100 & wait"]) as server:
        try:
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
            wait_until(lambda: children.read_text() != "", "it has its worker")
            worker = int(children.read_text())
            with paused(0.01, 100, server.pid, range(80, 81), Path()):
                wait_until(lambda: state(worker) == "T", "the worker is stopped")
                assert state(server.pid) != "T"
            wait_until(lambda: state(worker) != "T", "the worker goes on")
            subprocess.run(["kill", str(worker)], check=True)
        finally:
            server.kill()
