"""The first screen of a report: what was asked, what came out, how sure that is, and what speaks against it.

It is for readers who know neither the slides nor the kernel. Every sentence is computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from analysis.circumstances import differing
from analysis.emulated import is_emulated
from analysis.estimates import each
from analysis.results import Result
from analysis.verdicts import EXPLORATORY, HIGHER, LOWER, PRIMARY, UNKNOWN
from analysis.words import called, counted
from records.metrics import ACTIVE_LOCAL, COST, COSTS, METRICS, P50, P99, PASSIVE_LOCAL, SERVER_COST, THROUGHPUT
from records.run import Run
from records.trials import BASE

OURS = "fastsocket"
WHAT = (
    "Fastsocket gives each worker of a server a listener of its own, and has a connection's packets handled on the "
    "core of the worker that reads them. Here it is a library that is preloaded, and a program that steers packets; "
    "neither kernel nor server is changed."
)
PUBLISHED = "The original project published 5.8 times the connections per second, at 24 cores"


@dataclass(frozen=True)
class Short:
    """The paragraphs of the first screen, as lists of sentences; an empty list: there is nothing to say."""

    asked: list[str]
    found: list[str]
    sure: list[str]
    against: list[str]


def in_short(results: list[Result]) -> Short:
    """The first screen of all results together. If several runs answer the same question, the run with the most blocks
    is quoted."""
    measured = sorted((result for result in results if result.trials), key=lambda result: -result.run.options.blocks)
    timed = [result for result in measured if not is_emulated(result.run)]
    found = answers(timed)
    absent = [absence(result.run) for result in results if result.run.options.why_not]
    return Short(
        asked=_asked(timed or measured) if measured else [],
        found=[*_found(found), *_localities(measured), *absent],
        sure=_sure(timed) if found else [],
        against=[*_losses(found), *_doubts(timed)] if found else [],
    )


def absence(run: Run) -> str:
    """A sentence on why a run has no trials."""
    return f"{run.options.experiment} is not available here: {run.options.why_not}."


Key = tuple[str, int, str, str]  # workload, core count, condition(), metric
Answers = dict[Key, Any]  # -> the row of the verdict on Fastsocket over base
_SAID = (*THROUGHPUT, *COSTS, P50, P99)


def condition(run: Run, workload: str) -> str:
    """Under which conditions the variants were compared; empty: at full speed and undisturbed."""
    options = run.options
    said = {
        f"at {options.share or 0:.0%} of what base takes".replace("%", " %"): options.share is not None,
        "at the same load": workload in options.rates,
        "beside a busy process": options.neighbour == 0,
        "beside a busy process of lower priority": bool(options.neighbour),
        f"with a worker stopped for {options.pause} ms": options.pause is not None,
        f"in bursts of {options.burst}": options.burst > 0,
        "with all packets on one core": options.one_queue,
    }
    return ", ".join(words for words, holds in said.items() if holds)


def answers(results: list[Result]) -> Answers:
    """The verdicts on Fastsocket over base that have an interval, by workload, core count, condition and metric.

    They are ordered by workload, from the largest core count down, and without conditions first. At a given rate all
    variants serve the same, so throughput is left out there.
    """
    found: Answers = {}
    for result in results:
        ours = result.verdicts[(result.verdicts.variant == OURS) & (result.verdicts.over == BASE)]
        for row in each(ours[(ours.verdict != UNKNOWN) & ours.metric.isin(_SAID)]):
            at_rate = result.run.options.at_rate(row.workload)
            if not (result.run.options.observes or (at_rate and row.metric in THROUGHPUT)):
                found.setdefault((row.workload, row.cores, condition(result.run, row.workload), row.metric), row)
    workloads = list(dict.fromkeys(workload for result in results for workload in result.run.options.workloads))
    conditions = ["", *dict.fromkeys(of for _, _, of, _ in found if of)]

    def place(key: Key) -> tuple[int, int, int, int]:
        return workloads.index(key[0]), -key[1], conditions.index(key[2]), _SAID.index(key[3])

    return {key: found[key] for key in sorted(found, key=place)}


def _asked(results: list[Result]) -> list[str]:
    run = results[0].run
    variants = {variant for result in results for variant in result.run.options.variants}
    servers = list(dict.fromkeys(called(name) for result in results for name in result.run.options.workloads))
    machine = run.fingerprint
    where = f"Linux {machine.get('kernel', '?')}, {max(run.options.cores)} of its CPUs for the server"
    question = (
        f"The question: what does it change for {listed(servers)}, against the same server with one shared listener "
        f"(base)? The machine: {where}. The variants took turns on the same CPUs, in {_blocks(results)} blocks."
    )
    return [WHAT, question] if OURS in variants else [question]


def _blocks(results: list[Result]) -> str:
    fewest, most = (choose(result.run.options.blocks for result in results) for choose in (min, max))
    return f"{most}" if fewest == most else f"{fewest} to {most}"


def listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _found(known: Answers) -> list[str]:
    """Sentences on what came out: throughput and the primary outcome in any case, other metrics if they are better."""
    return _by_setting(
        {key: row for key, row in known.items() if row.metric in THROUGHPUT or row.role == PRIMARY or _is(BETTER, row)}
    )


def _losses(known: Answers) -> list[str]:
    return _by_setting({key: row for key, row in known.items() if _is(WORSE, row)})


def _by_setting(known: Answers) -> list[str]:
    """A sentence for each server, core count and condition."""
    parts: dict[str, list[str]] = {}
    for key, row in known.items():
        parts.setdefault(_place(key), []).append(f"{_change(row)}{_role(row)}")
    return [f"{where}: {'; '.join(said)}." for where, said in parts.items()]


BETTER, WORSE = "better", "worse"


def _is(what: str, row: Any) -> bool:
    higher_is = BETTER if METRICS[row.metric].better == "higher" else WORSE
    return row.verdict in (HIGHER, LOWER) and (row.verdict == HIGHER) == (higher_is == what)


def _place(key: Key) -> str:
    workload, cores, under, _ = key
    return ", ".join(filter(None, [f"{called(workload)} on {counted(cores)}", under]))


def _role(row: Any) -> str:
    return ", the outcome that was named beforehand" if row.role == PRIMARY else ""


WORDS = {  # metric -> the words for more, for less, and for what it counts
    **dict.fromkeys(THROUGHPUT, ("more", "fewer", "requests")),
    SERVER_COST: ("more", "less", METRICS[SERVER_COST].called),
    COST: ("more", "less", METRICS[COST].called),
    P50: ("longer", "shorter", METRICS[P50].called),
    P99: ("longer", "shorter", METRICS[P99].called),
}


def _change(row: Any) -> str:
    """A ratio as a change in percent or, if its interval does not allow to claim one, as no clear difference."""
    more, less, what = WORDS[row.metric]
    low, high = 100 * (row.low - 1), 100 * (row.high - 1)
    if row.verdict == HIGHER:
        return _said(100 * (row.ratio - 1), more, what, low, high)
    if row.verdict == LOWER:
        return _said(100 * (1 - row.ratio), less, what, -high, -low)
    seen = f"{100 * row.seen_from:.1f} % would have been seen"
    return f"no clear difference in {what} (from {-low:.1f} % {less} to {high:.1f} % {more}; {seen})"


def _said(change: float, way: str, what: str, low: float, high: float) -> str:
    interval = f"95 % interval {low:.1f} to {high:.1f} %"
    return f"{change:.1f} % {way} {what} ({interval})"


def _localities(results: list[Result]) -> list[str]:
    """Sentences on each server's share of local reads at the largest core count.

    A run at full speed is preferred: at lower loads, an idle core more often reads what it took in itself.
    """
    results = sorted(results, key=lambda result: any(map(result.run.options.at_rate, result.run.options.workloads)))
    sentences = []
    for metric in (PASSIVE_LOCAL, ACTIVE_LOCAL):
        said: dict[str, str] = {}
        for result in results:
            for workload in result.run.options.workloads:
                if workload not in said and (shares := _local(result, workload, metric)):
                    said[workload] = shares
        if said:
            sentences.append(f"{METRICS[metric].called.capitalize()}: {listed(list(said.values()))}.")
    return sentences


def _local(result: Result, workload: str, metric: str) -> str:
    """A workload's local reads with and without Fastsocket. Empty on one core, or if either was not measured."""
    cores, rows = max(result.run.options.cores), result.summary
    here = rows[(rows.workload == workload) & (rows.cores == cores) & (rows.metric == metric)].set_index("variant")
    if cores == 1 or not {BASE, OURS} <= set(here.index):
        return ""
    ours, base = here.estimate[OURS], here.estimate[BASE]
    return f"{called(workload)} {ours:.1f} % with Fastsocket (without: {base:.1f} %)"


def _sure(results: list[Result]) -> list[str]:
    checked = [control for result in results for control in result.controls]
    off = sum(control.is_off for control in checked)
    sentences = []
    if checked:
        widths = sorted(control.width - 1 for control in checked)
        sentences.append(
            f"Base was measured twice, as if it were two variants, in {counted(len(checked), 'setting')}. Such equal "
            f"arms may differ by {100 * widths[0]:.1f} to {100 * widths[-1]:.1f} %. {off} of {len(checked)} differed "
            f"clearly; by chance it would be about {len(checked) / 20:.1f}."
        )
    else:
        sentences.append("No A/A control has an interval, so nothing tells how far two equal arms come apart.")
    judged = sum((result.verdicts.role != EXPLORATORY).sum() for result in results)
    others = sum(((result.verdicts.role == EXPLORATORY) & result.verdicts.p.notna()).sum() for result in results)
    sentences.append(
        f"{counted(judged, 'ratio')} answer what was asked, and are adjusted for their number where they were not "
        f"named beforehand. {others} more, such as those of latency, are exploratory: about {others / 20:.0f} would "
        "leave out 1 by chance."
    )
    return sentences


def _doubts(results: list[Result]) -> Iterator[str]:
    """Sentences on what speaks against the results, each once for all results together."""
    for result in results:
        yield from (str(control) for control in result.controls if control.fails)
    shared = [result for result in results if any(placement.shared for placement in result.run.placements)]
    if shared:
        yield "The load generator shares CPUs with the server: what it takes, the server lacks."
    largest = max(max(result.run.options.cores) for result in results)
    if largest < 24:
        yield f"{PUBLISHED}. {counted(largest).capitalize()} can neither confirm nor deny that."
    marked, failed, total = (
        sum(bool(trial.spoilt) for result in results for trial in result.trials),
        sum(bool(trial.failed) for result in results for trial in result.trials),
        sum(len(result.trials) for result in results),
    )
    if apart := differing([result.run for result in results]):
        yield f"The runs of this report were not all got with the same: {', '.join(apart)}."
    if marked or failed:
        yield f"Of {total} trials, {failed} failed and {marked} are marked as less trustworthy."
