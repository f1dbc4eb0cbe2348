"""Fits the parameters of a published curve: the best ones, and draws of others that the points' errors allow."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.optimize import curve_fit
from scipy.stats import multivariate_t

from analysis.model.curves import Curve
from analysis.model.queue import Numbers, at_the_lock, throughput

DRAWS = 400
_TRIED, _ROUNDS, _SEED, _TAIL = 3_000, 3, 1, 4
_LOCAL, _HOLD, _REMOTE, _SPUN = 40.0, 3.0, 1.0, 4.0  # where fitting begins: three times in µs, and a number of spins
_LEAST = 0.03  # lower bound, as a part of where fitting begins: near 0 parameters cannot be told from each other


class Model(Protocol):
    """A model with the parameters of a curve. The first element of each array is the best value, others are draws."""

    def kcps(self, cores: int) -> Numbers:
        """The thousand connections per second on so many cores: the best value and the draws."""


@dataclass(frozen=True)
class Lock:
    """The queueing model of cores that wait for one lock (analysis/model/queue.py). Times are in µs per connection."""

    curve: Curve
    local: Numbers  # work without the lock, if all of it is on one core
    hold: Numbers  # time with the lock
    remote: Numbers  # more work if another core handled the packets; if packets are local, on sockets but the first
    spun: Numbers  # how often the lock is taken in a way that its waiters slow down

    def local_at(self, cores: int) -> Numbers:
        """The work without the lock, in µs. If packets go to any of n cores, (n - 1)/n of them are remote."""
        machine = self.curve.machine
        if self.curve.is_local:
            return self.local + self.remote * machine.away(cores)
        return self.local + self.remote * (1 - 1 / cores) * machine.transfer(cores) / machine.transfer(1)

    def queue(self, cores: int) -> Numbers:
        per_waiter = self.spun * self.curve.machine.transfer(cores)
        return at_the_lock(cores, self.local_at(cores), self.hold, per_waiter)

    def kcps(self, cores: int) -> Numbers:
        return 1000 * throughput(self.queue(cores), self.local_at(cores))


@dataclass(frozen=True)
class Scalability:
    """The Universal Scalability Law (Gunther)."""

    alone: Numbers
    contention: Numbers
    coherency: Numbers

    def kcps(self, cores: int) -> Numbers:
        return self.alone * cores / (1 + self.contention * (cores - 1) + self.coherency * cores * (cores - 1))


def fit_lock(curve: Curve, spun: float) -> Lock:
    """Fit the queueing model to the known points alone. spun is given, because few cores tell little of it."""
    beyond_one_socket = curve.known > curve.machine.socket_cores
    free = [_LOCAL, _HOLD] + ([_REMOTE] if beyond_one_socket or not curve.is_local else [])
    return _lock(curve, _fitted(lambda given: _lock(curve, given, spun), curve, free), spun)


def fit_lock_to_all(curve: Curve) -> Lock:
    """Fit the queueing model to all points. If the curve has spins, spun is fitted, too."""
    curve = replace(curve, known=int(curve.cores.max()))
    if not curve.spun:
        return fit_lock(curve, 0)
    free = [_LOCAL, _HOLD, _REMOTE, _SPUN]
    drawn = _fitted(lambda given: _lock(curve, given[:3], given[3]), curve, free)
    return _lock(curve, drawn[:3], drawn[3])


def fit_scalability(curve: Curve) -> Scalability:
    """Fit the Universal Scalability Law to the known points alone."""
    return Scalability(*_fitted(lambda given: Scalability(*given), curve, [float(curve.kcps[0]), 0.01, 0.0001]))


def _lock(curve: Curve, given: Numbers, spun: float | Numbers) -> Lock:
    local, hold = given[:2]
    remote = given[2] if len(given) > 2 else np.zeros_like(local)
    return Lock(curve, local, hold, remote, np.broadcast_to(np.asarray(spun, float), local.shape))


def _fitted(model: Callable[[Numbers], Model], curve: Curve, start: list[float]) -> Numbers:
    """A row for each parameter: the best value, and then draws, each value as often as it is likely.

    If the best curve lies further off the points than their errors explain, the errors are taken to be larger.
    """
    cores, kcps, sigma = (values[curve.is_known] for values in (curve.cores, curve.kcps, curve.sigma))

    def predict(given: Numbers) -> Numbers:
        fitted = model(given)
        return np.array([fitted.kcps(int(count)) for count in cores])

    best, covariance = curve_fit(
        lambda _, *given: predict(np.array(given)[:, None])[:, 0],
        *(cores, kcps, start, sigma),
        absolute_sigma=True,
        bounds=(_LEAST * np.array(start), np.inf),
        x_scale=start,
    )

    def off(given: Numbers) -> Numbers:
        squares: Numbers = (((predict(given) - kcps[:, None]) / sigma[:, None]) ** 2).sum(axis=0)
        return squares

    scale = max(1.0, float(off(best[:, None])[0]) / (len(cores) - len(best)))
    middle, spread = best, scale * covariance
    for _ in range(_ROUNDS):  # importance sampling: each round draws around what the round before found likely
        proposal = multivariate_t(middle, spread, df=_TAIL, seed=_SEED, allow_singular=True)
        tried = proposal.rvs(_TRIED)
        tried = tried[(tried >= 0).all(axis=1)]
        likely = -off(tried.T) / scale / 2 - proposal.logpdf(tried)
        weights = np.exp(likely - likely.max())
        middle, spread = np.average(tried, axis=0, weights=weights), np.cov(tried.T, aweights=weights)
    drawn = np.random.default_rng(_SEED).choice(len(tried), DRAWS, p=weights / weights.sum())
    return np.vstack([best, tried[drawn]]).T
