"""Cores that work on their own, and now and then wait for one lock: a closed queueing network, solved exactly.

A core is a customer. It works on a connection for a while, then needs the lock, then goes on with the next connection.
This is the machine-repairman model. If waiters spin on one cache line (a ticket lock), each hand-over takes longer the
more waiters there are: the cache line goes to half of the waiters before it reaches the next one in turn. That is the
model of Boyd-Wickizer, Kaashoek, Morris and Zeldovich, "Non-scalable locks are dangerous", Linux Symposium 2012.
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def at_the_lock(cores: int, local: Numbers, hold: Numbers, per_waiter: Numbers) -> Numbers:
    """The probabilities that 0, 1, … all cores hold the lock or wait for it: a row for each set of parameters.

    local: work for each connection without the lock. hold: time with the lock. per_waiter: the time in which one waiter
    gets the cache line; each waiter prolongs a hand-over by half of it, because on average half of the waiters get the
    line first. All are in the same unit of time.
    """
    waiting = np.arange(cores)  # how many cores wait behind the holder, after one more core has come
    arrive = (cores - waiting) / local[:, None]
    leave = hold[:, None] + per_waiter[:, None] * waiting / 2
    with np.errstate(divide="ignore"):  # a lock that takes no time has no queue
        steps = np.log(arrive) + np.log(leave)
    logs = np.concatenate([np.zeros((len(local), 1)), np.cumsum(steps, axis=1)], axis=1)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    queue: Numbers = weights / weights.sum(axis=1, keepdims=True)
    return queue


def throughput(queue: Numbers, local: Numbers) -> Numbers:
    """Connections per unit of time of all cores. Cores that are not at the lock work. queue: from at_the_lock()."""
    cores = queue.shape[1] - 1
    rate: Numbers = (cores - queue @ np.arange(cores + 1)) / local
    return rate


def waiting(queue: Numbers) -> Numbers:
    """The part of all cores' time in which they wait for the lock."""
    cores = queue.shape[1] - 1
    part: Numbers = queue @ np.maximum(np.arange(cores + 1) - 1, 0) / cores
    return part


def busy(queue: Numbers) -> Numbers:
    """The part of the time, 0 to 1, in which some core has the lock."""
    return 1 - queue[:, 0]
