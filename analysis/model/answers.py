"""What the model predicts: the points that it was not fitted to, more cores than were measured, and a fleet."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.estimates import each
from analysis.model.curves import PUBLISHED, Curve, Machine, published_curves
from analysis.model.fit import DRAWS, Lock, Scalability, fit_lock, fit_lock_to_all, fit_scalability
from analysis.model.queue import Numbers, busy, waiting
from analysis.words import called
from records.trials import BASE, CONTROL

LOAD, SPARE = 0.7, 1  # each machine is loaded with this part of its maximum, so that it answers in time; spare machines
FLEET_CORES = (12, 24, 64)
_HELD_ALWAYS = 0.95  # a lock that is held for more than this part of the time is the limit
_GROUP, _CORES_OF_GROUPS = 16, 64  # threads per group, and cores, of HAProxy's test of one listener per thread group
_ONE_LISTENER, _LISTENERS = 85.0, 172.0  # kcps of that test with one listener and with several; commit 0af603f46faa
_NOT_SWITCHES = (BASE, "latest", CONTROL)  # arms that are no switches of the library


@dataclass(frozen=True)
class Fitted:
    """A published curve with its models: those fitted to the known points, and one fitted to all points."""

    curve: Curve

    @cached_property
    def known(self) -> Lock:
        return fit_lock(self.curve, self.curve.spun)

    @cached_property
    def known_otherwise(self) -> Lock:
        """The model of the known points, if every global lock counts as a lock on which waiters spin."""
        spun = self.curve.spun_at_most
        return fit_lock(self.curve, spun) if spun != self.curve.spun else self.known

    @cached_property
    def law(self) -> Scalability:
        return fit_scalability(self.curve)

    @cached_property
    def all(self) -> Lock:
        return fit_lock_to_all(self.curve)

    @property
    def held_out(self) -> list[int]:
        return [int(count) for count in self.curve.cores[~self.curve.is_known]]

    def published(self, cores: int) -> float:
        return float(self.curve.kcps[self.curve.cores == cores][0])

    def predicted(self, cores: int) -> Numbers:
        """The prediction from the known points, in thousand connections per second, and then draws of it.

        The draws also differ in which locks are counted.
        """
        first = self.known.kcps(cores)
        return np.concatenate([first, self.known_otherwise.kcps(cores)[1:]])

    def extrapolated(self, cores: int, work: Numbers | float = 1.0, spins: bool = True) -> Numbers:
        """The prediction from all points, in thousand connections per second, and then draws of it.

        work: the local work, over the curve's own. spins: whether waiters slow the lock down. The draws are as far off,
        either way, as the predictions of this curve's held-out points were. If all packets are local, half of the draws
        are fitted to the known points alone, those of the first socket: beyond it, a lock and a distance slow cores
        down much alike.
        """
        off = np.array([self.published(count) / self.predicted(count)[0] for count in self.held_out])
        models = [self.all, self.known] if self.curve.is_local else [self.all]
        found = [replace(model, local=model.local * work, spun=model.spun * spins).kcps(cores) for model in models]
        drawn = np.concatenate([one[1:] for one in found])
        return np.append(found[0][0], np.multiply.outer(np.concatenate([off, 1 / off]), drawn))


def fitted_curves() -> list[Fitted]:
    return [Fitted(curve) for curve in published_curves()]


def interval(drawn: Numbers) -> tuple[float, float]:
    """The interval of the middle 95 % of the draws, widened to hold the best value, which is drawn[0].

    If a parameter is at its bound, all draws can lie on one side of the best value.
    """
    low, high = np.percentile(drawn[1:], [2.5, 97.5])
    return min(float(low), float(drawn[0])), max(float(high), float(drawn[0]))


def parameters(fits: list[Fitted]) -> pd.DataFrame:
    """A row per curve: the parameters fitted to the known points, in µs, with intervals.

    spun is the number of spins that was assumed, and spun_by_all the number that fits all points.
    """
    rows = []
    for fit in fits:
        names = ("local", "hold", "remote")
        found = [(getattr(fit.known, name)[0], *interval(getattr(fit.known, name))) for name in names]
        spun = fit.curve.spun, float(fit.all.spun[0])
        rows.append((fit.curve.name, fit.curve.known, *(value for one in found for value in one), *spun))
    columns = [f"{name}{end}" for name in ("local", "hold", "remote") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["curve", "known", *columns, "spun", "spun_by_all"])


def held_out(fits: list[Fitted]) -> pd.DataFrame:
    """A row for each held-out point: the published value, the prediction with its interval, and the errors.

    error is the prediction over the published value, less 1. law_error is that of the Universal Scalability Law.
    """
    rows = []
    for fit in fits:
        for cores in fit.held_out:
            kcps, drawn, law = fit.published(cores), fit.predicted(cores), fit.law.kcps(cores)[0]
            rows.append((fit.curve.name, cores, kcps, drawn[0], *interval(drawn), drawn[0] / kcps - 1, law / kcps - 1))
    columns = ["curve", "cores", "published", "predicted", "low", "high", "error", "law_error"]
    return pd.DataFrame(rows, columns=columns)


def assumptions(fits: list[Fitted]) -> pd.DataFrame:
    """The errors at held-out points under each assumption about which locks waiters spin on.

    A row per assumption: the median of all absolute errors and, for each curve with spins, its errors.
    """
    choices = {
        "no waiter slows the lock down": [fit_lock(fit.curve, 0) if fit.curve.spun else fit.known for fit in fits],
        "the listener's lock is counted": [fit.known for fit in fits],
        "every global lock is counted": [fit.known_otherwise for fit in fits],
    }
    rows = []
    for name, chosen in choices.items():
        off = [_off(fit, model) for fit, model in zip(fits, chosen)]
        spinning = {fit.curve.workload: errors for fit, errors in zip(fits, off) if fit.curve.spun}
        rows.append({"assumption": name, "median_error": np.median(np.abs(np.concatenate(off))), **spinning})
    return pd.DataFrame(rows)


def _off(fit: Fitted, model: Lock) -> list[float]:
    return [float(model.kcps(count)[0]) / fit.published(count) - 1 for count in fit.held_out]


def beyond(fits: list[Fitted], cores: list[int]) -> pd.DataFrame:
    """A row per curve and core count: what more cores would give, what limits it, and the part of their time that they
    wait."""
    rows = []
    for fit in fits:
        for count in cores:
            drawn, queue = fit.extrapolated(count), fit.all.queue(count)[:1]
            limit = "the lock" if busy(queue)[0] > _HELD_ALWAYS else "local work"
            rows.append((fit.curve.name, count, drawn[0], *interval(drawn), limit, float(waiting(queue)[0])))
    return pd.DataFrame(rows, columns=["curve", "cores", "predicted", "low", "high", "limit", "waiting"])


def switches(fits: list[Fitted], cores: list[int], measured: pd.DataFrame) -> pd.DataFrame:
    """A row per server, step and core count: what the step brings, as a ratio of connections per second.

    measured: the summary of a run whose variants are switches of the library.
    """
    rows = []
    for workload in ("nginx", "haproxy"):
        base, latest, fastsocket = (_find(fits, workload, system) for system in ("base", "latest", "Fastsocket"))
        for count in cores:
            own, local = latest.extrapolated(count), fastsocket.extrapolated(count)
            steps = {
                "a listener for each core, if waiters spin": _over(own, base.extrapolated(count)),
                "a listener for each core, if waiters queue": _over(own, base.extrapolated(count, spins=False)),
                "then locality, and tables of its own": _over(local, own),
            } | {
                f"then, measured here: {variant}": fastsocket.extrapolated(count, work) / local
                for variant, work in _local_work(workload, measured)
            }
            rows += [(called(workload), name, count, ratio[0], *interval(ratio)) for name, ratio in steps.items()]
    return pd.DataFrame(rows, columns=["server", "switch", "cores", "ratio", "low", "high"])


def _over(more: Numbers, less: Numbers) -> Numbers:
    """The ratio of two predictions, and then draws of it. The predictions are of separate curves, so any draw of one is
    paired with any draw of the other."""
    random = np.random.default_rng(1)
    draws = (random.choice(one[1:], 4 * DRAWS) for one in (more, less))
    ratio: Numbers = np.append(more[0] / less[0], np.divide(*draws))
    return ratio


def _local_work(workload: str, measured: pd.DataFrame) -> Iterator[tuple[str, Numbers]]:
    """Each variant with its local work over base's, and then draws of that, as measured on one core, where no lock is
    contended."""
    alone = measured[(measured.workload == workload) & (measured.cores == 1) & (measured.metric == "cps")]
    for row in each(alone[~alone.variant.isin(_NOT_SWITCHES)].dropna(subset="ratio_low")):
        spread = np.log(row.ratio_high / row.ratio_low) / (2 * 1.96)
        noise = np.random.default_rng(1).normal(0, spread, DRAWS)
        yield row.variant, np.exp(np.append(0, noise)) / row.ratio_to_base


def other_checks(fits: list[Fitted]) -> pd.DataFrame:
    """Other published numbers, beside what the parameters from the known points predict for them."""
    base, latest = (_find(fits, "haproxy", system) for system in ("base", "latest"))
    spins = pd.read_csv(PUBLISHED / "profile.csv").query("system == 'base' and symbol == '_spin_lock'").percent.iloc[0]
    lost = np.concatenate([100 * waiting(fit.queue(24)) for fit in (base.known, base.known_otherwise)])
    more = _ONE_LISTENER * _more_listeners(base.known, latest.known)
    rows = [
        ("HAProxy, base, 24 cores: % of CPU time in _spin_lock", spins, lost[0], *interval(lost)),
        (f"HAProxy, 64 cores, a listener for each {_GROUP} threads: kcps", _LISTENERS, more[0], *interval(more)),
    ]
    found = pd.DataFrame(rows, columns=["what", "published", "predicted", "low", "high"])
    return found.assign(error=found.predicted / found.published - 1)


def _more_listeners(base: Lock, latest: Lock) -> Numbers:
    """What a server with a listener for each group of threads serves, over one with a single listener, on a kernel
    whose waiters queue.

    Each group has a lock like that of base. All groups together serve no more than a server with a listener per core.
    """
    machine = Machine(_CORES_OF_GROUPS, base.curve.machine.ghz)
    shared, own = (replace(fit, curve=replace(fit.curve, machine=machine), spun=0 * fit.spun) for fit in (base, latest))
    groups = _CORES_OF_GROUPS // _GROUP * shared.kcps(_GROUP)
    ratio: Numbers = np.minimum(groups, own.kcps(_CORES_OF_GROUPS)) / shared.kcps(_CORES_OF_GROUPS)
    return ratio


def _find(fits: list[Fitted], workload: str, system: str) -> Fitted:
    return next(fit for fit in fits if fit.curve.workload == workload and system in fit.curve.system)


def fleet(fits: list[Fitted], demand: int) -> pd.DataFrame:
    """How many machines so many connections per second need, with an interval: a row per curve and core count.

    Each machine is loaded with LOAD of what it serves at most, and SPARE machines are added. What a machine serves is
    the published value or, if there is none for its core count, the prediction.
    """
    rows = []
    for fit in fits:
        for cores in FLEET_CORES:
            is_known = cores in fit.curve.cores
            best, low, high = _as_published(fit.curve, cores) if is_known else _as_predicted(fit, cores)
            machines = [_machines(demand, kcps) for kcps in (best, high, low)]
            rows.append((fit.curve.name, cores, "published" if is_known else "predicted", *machines))
    return pd.DataFrame(rows, columns=["curve", "cores", "source", "machines", "low", "high"])


def _as_predicted(fit: Fitted, cores: int) -> tuple[float, float, float]:
    drawn = fit.extrapolated(cores)
    return float(drawn[0]), *interval(drawn)


def _as_published(curve: Curve, cores: int) -> tuple[float, float, float]:
    (kcps,), (sigma,) = curve.kcps[curve.cores == cores], curve.sigma[curve.cores == cores]
    return kcps, kcps - 2 * sigma, kcps + 2 * sigma


def _machines(demand: int, kcps: float) -> int:
    return int(np.ceil(demand / (LOAD * 1000 * kcps))) + SPARE
