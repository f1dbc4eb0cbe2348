"""Which interval holds: some that could have been chosen, against simulated noise, and against that of A/A trials.

python3 -m analysis.study [--runs N] [DIR]    DIR: a run whose A/A control gives the noise; default: the reference run

A simulated run is of ABBA blocks of four arms, of which two that are equal are compared. A false positive is an
interval that leaves out 1. Power is how often the interval is above 1 where one arm is 3 % better: each interval moves
with such a shift. The tables are Markdown, and the same in each run.
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
SPREAD = 0.045  # of a trial's logarithm, where noise is simulated: about what the reference run has
STALLS, STALL = 0.03, (0.3, 0.9)  # such a part of the trials loses 26 to 59 %
SHOWN_BLOCKS = (5, 10, 16, 40)  # of quick experiments, of most quick, full and paper ones
LEAST_BLOCKS = 10  # of a control, to tell what its noise is like
_QUANTILE = (1 + CONFIDENCE) / 2

Bounds = tuple[Values, Values]
Random = np.random.Generator
Noise = Callable[[Random, int, int], Values]

# ---- noise, runs x blocks x 2: in each half of a block, the logarithm of one arm less that of the other --------------


def simulated(trials: Callable[[Random, tuple[int, ...]], Values]) -> Noise:
    """Noise of single trials, in the order in which they run, put into ABBA blocks."""

    def noise(random: Random, runs: int, blocks: int) -> Values:
        arms = random.permuted(np.broadcast_to(np.arange(ARMS), (runs, blocks, ARMS)), axis=-1)
        order = np.stack([arms, arms[..., ::-1]], axis=-2)
        values = trials(random, (runs, blocks, 2 * ARMS)).reshape(order.shape)
        return np.asarray((values * (order == 0)).sum(-1) - (values * (order == 1)).sum(-1))

    return noise


def with_stalls(random: Random, values: Values) -> Values:
    """Some trials lose a large part of what they would have served."""
    stalled = random.random(values.shape) < STALLS
    return np.asarray(values - stalled * random.uniform(*STALL, values.shape))


def real(pairs: list[Values], spread: float, stalls: bool = False) -> Noise:
    """Blocks drawn from those of A/A controls, scaled to a spread of the blocks' means."""
    pool = np.concatenate([(part - part.mean()) / part.mean(axis=1).std(ddof=1) for part in pairs])

    def noise(random: Random, runs: int, blocks: int) -> Values:
        drawn = spread * random.choice(pool, (runs, blocks))
        nothing = np.zeros(drawn.shape)
        return drawn + with_stalls(random, nothing) - with_stalls(random, nothing) if stalls else drawn

    return noise


def noises(pairs: list[Values]) -> dict[str, Noise]:
    """All kinds, by what tables call them."""
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


# ---- intervals of the centre, for each run of an array of runs x values ----------------------------------------------


def student(values: Values) -> Bounds:
    """Of the mean."""
    half = t.ppf(_QUANTILE, values.shape[-1] - 1) * sem(values, axis=-1)
    return values.mean(-1) - half, values.mean(-1) + half


def trimmed(values: Values) -> Bounds:
    """Of the mean without the largest and the smallest tenth (Yuen)."""
    count, cut = values.shape[-1], -(-values.shape[-1] // 10)
    kept, ranked = count - 2 * cut, np.sort(values, axis=-1)
    spread = np.clip(ranked, ranked[:, [cut]], ranked[:, [-cut - 1]]).std(-1, ddof=1)
    half = t.ppf(_QUANTILE, kept - 1) * spread * count**0.5 / kept
    middle = ranked[:, cut : count - cut].mean(-1)
    return middle - half, middle + half


def hodges_lehmann(values: Values) -> Bounds:
    """pseudomedian() of all runs at once."""
    if not (place := place_of_bounds(values.shape[-1])):
        return np.full(len(values), -np.inf), np.full(len(values), np.inf)
    means = np.partition(means_of_two(values), [place - 1, -place], axis=-1)
    return means[:, place - 1], means[:, -place]


def bootstrap_t(values: Values) -> Bounds:
    """Of the mean, from resampled values in units of their own error: what this project had before."""
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
    """From the mean of each block's two halves."""
    return lambda noise: interval(noise.mean(-1))


def of_pairs(interval: Callable[[Values], Bounds]) -> Callable[[Values], Bounds]:
    """From each half of each block."""
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
_SLOW = {"bootstrap-t, blocks": 500}  # runs at the most


# ---- tables ----------------------------------------------------------------------------------------------------------


def false_positives(bounds: Bounds) -> str:
    """In percent, and in bold where so many of 5 % can hardly be chance."""
    low, high = bounds
    wrong = int(((low > 0) | (high < 0)).sum())
    said = f"{wrong / len(low):.1%}".removesuffix("%")
    return f"**{said}**" if exceeds(wrong, len(low)) else said


def exceeds(wrong: int, runs: int) -> bool:
    """Whether the binomial interval lies above what was promised; chance does that in one of a thousand cells."""
    return float(binomtest(wrong, runs).proportion_ci(0.998).low) > 1 - CONFIDENCE


def power(bounds: Bounds, effect: float = EFFECT) -> str:
    """In percent."""
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
    """What the chosen interval could see, as a run says it (the median of runs), and how often it does see that."""
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
    """Runs of 10 blocks and more, five at a time, until the chosen interval is narrow, or there are too many blocks."""
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
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _runs(name: str, runs: int) -> int:
    return min(runs, _SLOW.get(name, runs))


def control_pairs(directory: Path) -> list[Values]:
    """Of each A/A control of the runs there: log-ratios of what was the run's outcome, blocks x 2."""
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
    """Headings and tables."""
    blocks = " / ".join(map(str, SHOWN_BLOCKS))
    yield f"False positives, % of runs of {blocks} blocks", table(kinds, false_positives, runs)
    yield f"Power for {EFFECT:.0%}, % of runs of {blocks} blocks", table(kinds, power, runs)
    yield "False positives of --precision 2%, with at most 60 blocks", stopped(kinds, runs)
    yield f"What {CHOSEN} can see, and how often it does", resolutions(kinds, runs)


if __name__ == "__main__":
    main()
