"""Dask, set to do as little as possible: all that its processes do while a block is measured disturbs the trials.

Dask is installed only when a command needs it (requirements-cluster.txt). Only this file imports Dask.
"""

import logging

import dask
from distributed import Client, KilledWorker, LocalCluster, Worker, wait
from distributed.client import FuturesCancelledError

dask.config.set(
    {
        "distributed.scheduler.work-stealing": False,
        "distributed.scheduler.active-memory-manager.start": False,
        "distributed.worker.profile.enabled": False,
        "distributed.worker.http.routes": [],
        "distributed.admin.system-monitor.interval": "1h",
        "distributed.admin.system-monitor.disk": False,
        "distributed.admin.system-monitor.gil.enabled": False,
        "distributed.admin.tick.interval": "1s",  # how often Dask checks its event loop: every 20 ms by default
        "distributed.admin.tick.cycle": "1h",
    }
)
for name in ("distributed", "distributed.client"):
    logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # we say what matters ourselves, in one line

__all__ = ["Client", "FuturesCancelledError", "KilledWorker", "LocalCluster", "Worker", "wait"]
