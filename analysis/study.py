"""Compare ways to compute a 95 % interval, on simulated noise and on the noise of real A/A controls.

python3 -m analysis.study [--runs N] [DIR]    DIR: a run whose A/A control gives the noise; default: the reference run

A simulated run consists of ABBA blocks of four arms. Two equal arms of them are compared. A false positive is an
interval that leaves out 1. Power is how often the interval lies above 1 if one arm is 3 % better; such a shift moves
each interval by as much, so no new runs are needed. The tables are Markdown, and the same each time.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy.stats import binomtest, sem, t

from analysis.estimates import outcome, paired_logs
from analysis.results import results_in
from analysis.statistics import CONFIDENCE, Values, means_of_two, place_of_bounds, resolution
from records.trials import BASE, CONTROL

REFERENCE = Path(__file__).resolve().parent.parent / "results" / "reference"
RUNS, EFFECT, ARMS = 2000, 0.03, 4
SPREAD = 0.045  # spread of a simulated trial's logarithm: about that of the reference run
STALLS, STALL = 0.03, (0.3, 0.9)  # this part of the trials stalls: its logarithm falls by so much, a loss of 26 to 59 %
SHOWN_BLOCKS = (5, 10, 16, 40)  # the fewest with an interval, and those of most quick, full and paper experiments
LEAST_BLOCKS = 10  # blocks that a control needs to show what its noise is like
_QUANTILE = (1 + CONFIDENCE) / 2

Bounds = tuple[Values, Values]
Random = np.random.Generator
Noise = Callable[[Random, int, int], Values]

# ---- noise, runs x blocks x 2 halves: the logarithm of one arm's value less that of an equal arm ---------------------


def simulated(trials: Callable[[Random, tuple[int, ...]], Values]) -> Noise:
    """Noise from simulated trials. trials: returns values of single trials in the order in which they run, for a shape
    of runs x blocks x trials of a block. The values are put into ABBA blocks of ARMS arms, whose order is drawn."""

    def noise(random: Random, runs: int, blocks: int) -> Values:
        arms = random.permuted(np.broadcast_to(np.arange(ARMS), (runs, blocks, ARMS)), axis=-1)
        order = np.stack([arms, arms[..., ::-1]], axis=-2)
        values = trials(random, (runs, blocks, 2 * ARMS)).reshape(order.shape)
        return np.asarray((values * (order == 0)).sum(-1) - (values * (order == 1)).sum(-1))

    return noise


def with_stalls(random: Random, values: Values) -> Values:
    """The values with stalls: STALLS of the trials, drawn at random, lose a large part of what they would serve."""
    stalled = random.random(values.shape) < STALLS
    return np.asarray(values - stalled * random.uniform(*STALL, values.shape))


def real(pairs: list[Values], spread: float, stalls: bool = False) -> Noise:
    """Noise from real trials: blocks are drawn from those of A/A controls.

    pairs: of each control, blocks x 2. Each control is centred, and scaled so that its blocks' means have this spread.
    stalls: whether some trials stall, too.
    """
    pool = np.concatenate([(part - part.mean()) / part.mean(axis=1).std(ddof=1) for part in pairs])

    def noise(random: Random, runs: int, blocks: int) -> Values:
        drawn = spread * random.choice(pool, (runs, blocks))
        nothing = np.zeros(drawn.shape)
        return drawn + with_stalls(random, nothing) - with_stalls(random, nothing) if stalls else drawn

    return noise


def noises(pairs: list[Values]) -> dict[str, Noise]:
    """All kinds of noise, by their names in the tables. pairs: of each real A/A control, blocks x 2."""
    middle, wide = np.quantile([part.mean(axis=1).std(ddof=1) for part in pairs], [0.5, 0.75])
    return {
        f"real A/A, blocks spread by {middle:.1%}": real(pairs, middle),
        f"real A/A of noisy settings, {wide:.1%}": real(pairs, wide),
        f"real A/A, {STALLS:.0%} of the trials stall": real(pairs, middle, stalls=True),
        "normal": simulated(lambda random, shape: random.normal(0, SPREAD, shape)),
        "heavy tails (t, 3 degrees)": simulated(lambda random, shape: SPREAD / 3**0.5 * random.standard_t(3, shape)),
        "skewed (exponential)": simulated(lambda random, shape: -random.exponential(SPREAD, shape)),
        f"normal, {STALLS:.0%} of the trials stall": simulated(
            lambda random, shape: with_stalls(random, random.normal(0, 0.7 * SPREAD, shape))
        ),
        "each trial like the last (AR 0.8)": simulated(_autoregressive),
        "random walk within a block": simulated(
            lambda random, shape: random.normal(0, SPREAD / 2, shape).cumsum(-1) + random.normal(0, 0.7 * SPREAD, shape)
        ),
        "drift, 1 % per trial up or down": simulated(
            lambda random, shape: (
                random.normal(0, 0.7 * SPREAD, shape)
                + 0.01 * np.arange(shape[-1]) * random.choice([-1, 1], (*shape[:-1], 1))
            )
        ),
    }


def _autoregressive(random: Random, shape: tuple[int, ...]) -> Values:
    steps, slow = random.normal(0, 0.6 * SPREAD, (shape[0], shape[1] * shape[2])), np.zeros(shape[0])
    values = np.empty(steps.shape)
    for trial in range(steps.shape[1]):
        slow = 0.8 * slow + steps[:, trial]
        values[:, trial] = slow
    return values.reshape(shape) + random.normal(0, 0.6 * SPREAD, shape)


# ---- intervals of the centre, one for each run, from an array of runs x values ---------------------------------------


def student(values: Values) -> Bounds:
    """Student's interval of the mean."""
    half = t.ppf(_QUANTILE, values.shape[-1] - 1) * sem(values, axis=-1)
    return values.mean(-1) - half, values.mean(-1) + half


def trimmed(values: Values) -> Bounds:
    """The interval of the trimmed mean, without the largest and the smallest tenth of the values (Yuen)."""
    count, cut = values.shape[-1], -(-values.shape[-1] // 10)
    kept, ranked = count - 2 * cut, np.sort(values, axis=-1)
    spread = np.clip(ranked, ranked[:, [cut]], ranked[:, [-cut - 1]]).std(-1, ddof=1)
    half = t.ppf(_QUANTILE, kept - 1) * spread * count**0.5 / kept
    middle = ranked[:, cut : count - cut].mean(-1)
    return middle - half, middle + half


def hodges_lehmann(values: Values) -> Bounds:
    """The interval of statistics.pseudomedian(), for all runs at once."""
    if not (place := place_of_bounds(values.shape[-1])):
        return np.full(len(values), -np.inf), np.full(len(values), np.inf)
    means = np.partition(means_of_two(values), [place - 1, -place], axis=-1)
    return means[:, place - 1], means[:, -place]


def bootstrap_t(values: Values) -> Bounds:
    """The bootstrap-t interval of the mean, from means of resampled values in units of their own standard error.

    Earlier versions of this project used it.
    """
    random, bounds = np.random.default_rng(1), []
    for sample in values:
        drawn = random.choice(sample, (999, len(sample)))
        error = np.asarray(sem(drawn, axis=-1))
        some = error > 1e-12
        scaled = (drawn.mean(-1)[some] - sample.mean()) / error[some]
        bounds.append(sample.mean() - np.quantile(scaled, [_QUANTILE, 1 - _QUANTILE]) * sem(sample))
    low, high = np.array(bounds).T
    return low, high


def of_blocks(interval: Callable[[Values], Bounds]) -> Callable[[Values], Bounds]:
    """A function that takes noise and returns the interval from blocks: each block's mean of two halves is a value."""
    return lambda noise: interval(noise.mean(-1))


def of_pairs(interval: Callable[[Values], Bounds]) -> Callable[[Values], Bounds]:
    """A function that takes noise and returns the interval of its pairs: each half of a block is a value."""
    return lambda noise: interval(noise.reshape(len(noise), -1))


CHOSEN = "Hodges-Lehmann, pairs"
INTERVALS: dict[str, Callable[[Values], Bounds]] = {
    "bootstrap-t, blocks": of_blocks(bootstrap_t),
    "Student, blocks": of_blocks(student),
    "Student, pairs": of_pairs(student),
    "trimmed, pairs": of_pairs(trimmed),
    "Hodges-Lehmann, blocks": of_blocks(hodges_lehmann),
    CHOSEN: of_pairs(hodges_lehmann),
}
_SLOW = {"bootstrap-t, blocks": 500}  # slow interval -> the most runs that are simulated for it


# ---- tables ----------------------------------------------------------------------------------------------------------


def false_positives(bounds: Bounds) -> str:
    """The share of intervals that leave out 0, in percent. It is bold if it exceeds 5 % by more than chance."""
    low, high = bounds
    wrong = int(((low > 0) | (high < 0)).sum())
    said = f"{wrong / len(low):.1%}".removesuffix("%")
    return f"**{said}**" if exceeds(wrong, len(low)) else said


def exceeds(wrong: int, runs: int) -> bool:
    """Whether the share of wrong intervals is above the promised 5 %, by its binomial interval of 99.8 %. Chance alone
    does that in one of a thousand cells."""
    return float(binomtest(wrong, runs).proportion_ci(0.998).low) > 1 - CONFIDENCE


def power(bounds: Bounds, effect: float = EFFECT) -> str:
    """The share of intervals that would lie above 0 if one arm were better by the effect, in percent."""
    return f"{(bounds[0] + np.log1p(effect) > 0).mean():.0%}".removesuffix("%")


def table(
    kinds: dict[str, Noise], cell: Callable[[Bounds], str], runs: int, blocks: Iterable[int] = SHOWN_BLOCKS
) -> str:
    """A row for each kind of noise, a column for each interval; a cell has a number for each count of blocks."""
    head = ["noise", *INTERVALS]
    rows = [
        [
            kind,
            *(
                " / ".join(cell(of(noise(np.random.default_rng(count), _runs(name, runs), count))) for count in blocks)
                for name, of in INTERVALS.items()
            ),
        ]
        for kind, noise in kinds.items()
    ]
    return markdown(head, rows)


def resolutions(kinds: dict[str, Noise], runs: int, blocks: Iterable[int] = SHOWN_BLOCKS) -> str:
    """A table: the smallest difference that a run with the CHOSEN interval says it could see (the median of the runs),
    and in how many of 100 runs such a difference is seen."""
    rows = []
    for kind, noise in kinds.items():
        cells = []
        for count in blocks:
            low, high = INTERVALS[CHOSEN](noise(np.random.default_rng(count), runs, count))
            said = float(np.median([resolution(*bounds) for bounds in np.exp([low, high]).T]))
            cells.append(f"{said - 1:.1%}, {power((low, high), said - 1)} of 100")
        rows.append([kind, *cells])
    return markdown(["noise", *(f"{count} blocks" for count in blocks)], rows)


def stopped(kinds: dict[str, Noise], runs: int, aim: float = 0.02, most: int = 60) -> str:
    """A table of runs that stop by themselves, as with --precision: false positives, and the median number of blocks.

    A run begins with 10 blocks. It gets five more at a time until the half width of the CHOSEN interval is at most aim,
    or until it has the most blocks.
    """
    rows = []
    for kind, noise in kinds.items():
        values = noise(np.random.default_rng(most), runs // 2, most)
        goes_on, taken, wrong = np.full(len(values), True), np.zeros(len(values)), 0
        for blocks in range(SHOWN_BLOCKS[1], most + 1, 5):
            low, high = INTERVALS[CHOSEN](values[goes_on, :blocks])
            ends = ((high - low) / 2 <= np.log1p(aim)) | (blocks == most)
            wrong += int((((low > 0) | (high < 0)) & ends).sum())
            taken[np.flatnonzero(goes_on)[ends]] = blocks
            goes_on[np.flatnonzero(goes_on)[ends]] = False
            if not goes_on.any():
                break
        said = f"{100 * wrong / len(values):.1f}"
        rows.append([kind, f"**{said}**" if exceeds(wrong, len(values)) else said, f"{np.median(taken):.0f}"])
    return markdown(["noise", "false positives, %", "blocks, median"], rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with this head and these rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _runs(name: str, runs: int) -> int:
    return min(runs, _SLOW.get(name, runs))


def control_pairs(directory: Path) -> list[Values]:
    """The pairs of each A/A control of the runs in a directory: log-ratios to base in the run's outcome, blocks x 2.

    Controls with fewer than LEAST_BLOCKS complete blocks are left out.
    """
    return [
        pairs
        for result in results_in(directory)
        for setting, of in paired_logs(result.trials, [CONTROL], [BASE]).items()
        if setting
        in {(row.workload, row.cores, row.metric) for row in outcome(result.run, result.summary).itertuples()}
        for pairs in [of]
        if len(pairs) >= LEAST_BLOCKS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m analysis.study", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS, help=f"simulated for each cell (default: {RUNS})")
    parser.add_argument("directory", nargs="?", type=Path, default=REFERENCE, metavar="DIR")
    asked = parser.parse_args()
    for heading, said in study(noises(control_pairs(asked.directory)), asked.runs):
        print(f"### {heading}\n\n{said}")


def study(kinds: dict[str, Noise], runs: int) -> Iterator[tuple[str, str]]:
    """The heading and the Markdown of each table."""
    blocks = " / ".join(map(str, SHOWN_BLOCKS))
    yield f"False positives, % of runs of {blocks} blocks", table(kinds, false_positives, runs)
    yield f"Power for {EFFECT:.0%}, % of runs of {blocks} blocks", table(kinds, power, runs)
    yield "False positives of --precision 2%, with at most 60 blocks", stopped(kinds, runs)
    yield f"What {CHOSEN} can see, and how often it does", resolutions(kinds, runs)


if __name__ == "__main__":
    main()
