"""The report of a run: one HTML file that needs no network. The outcome comes first, then all that it rests on."""

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from analysis import testbeds
from analysis.emulated import BANNER, is_emulated
from analysis.estimates import each
from analysis.figures import draw_all
from analysis.figures.overview import draw_overview
from analysis.figures.profile import FLAME
from analysis.results import Result, results_in
from analysis.summary import OURS, answers, in_short, listed
from analysis.tables import (
    cpu_by_core,
    failures,
    html,
    missing,
    probability,
    readable_cpu,
    readable_summary,
    readable_verdicts,
    write_tables,
)
from analysis.templates import template
from analysis.verdicts import ADJUSTED, EXPLORATORY, HIGHER, LOWER, NO_DIFFERENCE, PRIMARY, UNKNOWN
from analysis.words import NOT_AVAILABLE, called, counted, place
from records.metrics import COSTS, METRICS, P99, THROUGHPUT
from records.run import FigureSpec, Run
from records.trials import BASE, Trial

# A trial with less than the first part of its variant's usual throughput is slow. A machine whose load average before
# the run exceeds the second part of its number of CPUs is busy.
SLOW, BUSY = 0.7, 0.5
TEMPLATE = Path(__file__).with_name("report.html.j2")
_WORDS = {  # metric -> the words for more and for less of it
    **dict.fromkeys(THROUGHPUT, ("is faster than", "is slower than")),
    **dict.fromkeys(COSTS, ("costs more than", "costs less than")),
}


def write_all(directory: Path) -> Path:
    """Write estimates, tables, figures and the report of a run directory, or of a directory with several runs in it.

    Returns the report's path. Raises RecordError if the directory holds no run, a damaged run, or a run without trials.
    """
    return write_results(directory, results_in(directory))


def write_results(directory: Path, results: list[Result]) -> Path:
    """Write the tables and figures of each result, and one report of all. Returns the report's path."""
    for result in results:
        if result.trials:
            write_tables(result)
    return write_report(directory, results)


def write_report(directory: Path, results: list[Result]) -> Path:
    """Write report.html, with a section for each result.

    The figures are drawn anew, so that they show the same trials as the rest of the report.
    """
    path, drawn = directory / "report.html", [path for path in draw_all(results) if path.suffix == ".svg"]
    path.write_text(
        template(TEMPLATE).render(
            banner=BANNER if any(is_emulated(result.run) for result in results) else "",
            title=_title(results),
            in_short=in_short(results),
            overview=_overview(results),
            sections=[_section(result, drawn) for result in results],
            run=results[0].run,
            versions={tool: said for result in results for tool, said in result.run.versions.items()},
        )
    )
    return path


def _title(results: list[Result]) -> str:
    ours = any(OURS in result.run.options.variants for result in results)
    return "What Fastsocket changes on this machine" if ours else "What was measured on this machine"


def _overview(results: list[Result]) -> str:
    """The picture of the report's first screen as a data URL; empty if no result has anything to compare."""
    found = answers([result for result in results if result.trials and not is_emulated(result.run)])
    return _svg_url(draw_overview(found)) if found else ""


def _section(result: Result, drawn: list[Path]) -> dict[str, Any]:
    run, trials, summary = result.run, result.trials, result.summary
    here = {path.stem: path for path in drawn if path.parent.parent == result.directory}
    figures = [_figure(spec, here[spec.id]) for spec in run.options.figures]
    if run.options.why_not:
        return {"run": run, "why_not": run.options.why_not, "figures": figures}
    each_testbed, name = testbeds.by_testbed(run, trials), run.options.experiment
    asked, numbers = result.verdicts.role != EXPLORATORY, readable_summary(run, summary)
    absent = [heading for heading in numbers if (numbers[heading] == NOT_AVAILABLE).all()]
    return {
        "run": run,
        "why_not": "",
        "outcomes": [] if is_emulated(run) else outcomes(run, result.verdicts),
        "control": None if is_emulated(run) or run.options.observes else _control(result),
        "warnings": warnings(run, trials),
        "summary_table": _table(numbers.drop(columns=absent), f"{name}-summary"),
        "absent": absent,
        "verdicts_table": _table(readable_verdicts(run, result.verdicts[asked]), f"{name}-verdicts"),
        "exploratory_table": _table(readable_verdicts(run, result.verdicts[~asked]), f"{name}-exploratory"),
        "testbeds_table": _table(each_testbed, f"{name}-testbeds"),
        "figures": figures,
        "flame_graphs": [(stem, _data_url(path)) for stem, path in here.items() if stem.startswith(FLAME)],
        "cpu_table": None
        if is_emulated(run) or run.options.observes
        else Markup(html(readable_cpu(cpu_by_core(run, trials)), f"{name}-cpu")),
        "method": _method(run, trials),
    }


def _table(table: pd.DataFrame, name: str) -> Markup | None:
    return Markup(html(table, name)) if len(table) else None


def _figure(spec: FigureSpec, svg: Path) -> dict[str, Any]:
    """What the template needs for a figure. The figure of related systems is shown as a table, with its long sources
    apart."""
    numbers = svg.with_suffix(".csv")
    told = {"spec": spec, "url": _data_url(svg), "numbers": numbers.read_text(), "table": None, "sources": {}}
    shown = pd.read_csv(numbers, keep_default_na=False).astype(str)
    if spec.kind != "related" or "unavailable" in shown:
        return told
    table = shown.drop(columns=["variant", "source"]).rename(columns=lambda name: name.replace("_", " "))
    return {
        **told,
        "table": Markup(html(table, spec.id + "-table")),
        "sources": dict(zip(shown.system, shown.source)),
    }


def outcomes(run: Run, verdicts: pd.DataFrame) -> list[str]:
    """Sentences for each workload and core count: what each variant changes over base, as far as its interval allows a
    claim. The primary outcome is among them, whatever its metric is.

    Empty for a run that observed its trials: its outcome is neither throughput nor cost.
    """
    if run.options.observes:
        return []
    against = sorted(
        (variant for variant in run.options.variants if variant != BASE), key=lambda variant: variant != OURS
    )
    asked = verdicts[(verdicts.over == BASE) & verdicts.metric.isin([*THROUGHPUT, run.options.cost])]
    rows = {
        (row.workload, row.cores, row.variant): row
        for row in each(asked)
        if (row.metric == run.options.cost) == (run.options.at_rate(row.workload))
    }
    known = {row.Index for row in rows.values()}
    named = verdicts[(verdicts.role == PRIMARY) & ~verdicts.index.isin(known)]
    return [f"{place(row.workload, row.cores)}: {_claim(row.variant, row)}." for row in each(named)] + [
        f"{place(workload, cores)}: {claim}."
        for workload in run.options.workloads
        for cores in sorted(run.options.cores)
        for claim in _claims(
            {
                variant: rows.get((workload, cores, variant))
                for variant in against
                if variant not in run.options.lacking.get(workload, {})
            }
        )
    ]


def _claims(rows: dict[str, Any]) -> Iterator[str]:
    """A claim for each variant. Variants whose adjusted ratio shows no difference share one claim, but for OURS."""
    unclear = {
        variant: row
        for variant, row in rows.items()
        if variant != OURS and row is not None and (row.verdict, row.role) == (NO_DIFFERENCE, ADJUSTED)
    }
    together = unclear if len(unclear) > 1 else {}
    yield from (_claim(variant, row) for variant, row in rows.items() if variant not in together)
    if together:
        seen = [100 * row.seen_from for row in together.values()]
        yield (
            f"no difference seen between base and {listed(list(together))}; "
            f"{min(seen):.1f} to {max(seen):.1f} % would have been seen"
        )


def warnings(run: Run, trials: list[Trial]) -> list[str]:
    """What a reader has to know before trusting the numbers: a sentence for each reason."""
    return [
        *_incomplete(run, trials),
        *_sharing(run),
        *_elsewhere(run),
        *testbeds.warnings(run, trials),
        *_lacking(run),
        *_failed(run, trials),
        *_spoilt(trials),
        *_repeated(trials),
        *_slow(trials),
        *_constant(trials),
        *_busy_before(run),
        *(f"Not available here: {sentence}." for sentence in missing(run, trials)),
    ]


def _claim(variant: str, row: Any) -> str:
    if row is None:
        return f"{variant} has no measured trial"
    if row.verdict == UNKNOWN:
        return f"{variant} has too few complete blocks for an interval, so no claim is made"
    interval = f"95 % interval {row.low:.3f}–{row.high:.3f}{_standing(row)}"
    return f"{_verdict(variant, row)}, ratio {row.ratio:.3f} in {METRICS[row.metric].called} ({interval})"


def _standing(row: Any) -> str:
    """What follows the interval: the role of the ratio and, if no difference is claimed, what would have been seen."""
    said = {PRIMARY: "; the primary outcome", ADJUSTED: f"; adjusted p {probability(row.p_adjusted)}"}.get(row.role, "")
    seen = "" if row.verdict in (HIGHER, LOWER) else f"; {100 * row.seen_from:.1f} % would have been seen"
    return said + seen


def _verdict(variant: str, row: Any) -> str:
    more, less = _WORDS.get(row.metric, ("lies above", "lies below"))
    if row.verdict == HIGHER:
        return f"{variant} {more} {row.over}"
    if row.verdict == LOWER:
        return f"{variant} {less} {row.over}"
    return f"no difference seen between {variant} and {row.over}"


def _control(result: Result) -> dict[str, Any]:
    """What the report says of the A/A controls: a state (off, fine, unknown) and sentences. unknown: no interval."""
    if not result.controls:
        return {
            "state": "unknown",
            "sentences": [
                "No A/A control with an interval in this run: nothing tells how far apart two equal arms come out."
            ],
        }
    failing = [control for control in result.controls if control.fails]
    doubt = ["Effects of that size there may be no effects of the variants."] if failing else []
    rest = [control for control in result.controls if not control.fails]
    return {
        "state": "off" if failing else "fine",
        "sentences": ["The A/A control, base measured as if it were another variant:", *map(str, failing), *doubt]
        + [str(control) for control in rest],
    }


def _incomplete(run: Run, trials: list[Trial]) -> list[str]:
    if run.complete:
        return []
    return [f"Incomplete: {len(trials)} of {run.planned_trials} planned trials are in; --resume goes on."]


def _sharing(run: Run) -> list[str]:
    return [
        f"The load generator shares CPU{'s' if len(placement.shared) > 1 else ''} "
        f"{', '.join(map(str, placement.shared))} with the server at "
        f"{counted(placement.cores)}: what it takes, the server lacks, and ratios tend to come out nearer to 1."
        for placement in run.placements
        if placement.shared
    ]


def _elsewhere(run: Run) -> list[str]:
    """What a reader has to know if the load generator ran on another machine."""
    if not run.client:
        return []
    told = ", ".join(f"{name} {said}" for name, said in run.client.items())
    where = f"The load generator ran on another machine ({told}): its CPU time is in no number here."
    return [f"{where} The NICs and networks of both machines were left as they were: no variant was steered."]


def _lacking(run: Run) -> list[str]:
    return [
        f"{called(workload)} is not run as {variant}: {why}."
        for workload, lacking in run.options.lacking.items()
        for variant, why in lacking.items()
    ]


def _failed(run: Run, trials: list[Trial]) -> list[str]:
    count = sum(bool(trial.failed) for trial in trials)
    return [f"Failed: {count} of {len(trials)} trials.", *failures(run, trials)] if count else []


def _spoilt(trials: list[Trial]) -> list[str]:
    reasons = Counter(reason for trial in trials for reason in trial.spoilt)
    if not reasons:
        return []
    listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    marked = sum(bool(trial.spoilt) for trial in trials)
    return [f"Spoilt: {marked} of {len(trials)} trials are marked and kept in all numbers: {listed}."]


def _repeated(trials: list[Trial]) -> list[str]:
    reasons = Counter(trial.repeated for trial in trials if trial.repeated)
    listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    return [f"Run once more, with nothing kept of the first attempt: {listed}."] if reasons else []


def _slow(trials: list[Trial]) -> list[str]:
    """How many trials of each variant were slow. A ratio by pairs hardly shows such rare stalls.

    Trials at a given rate are left out, because all variants get the same load there.
    """
    served = pd.DataFrame(
        [
            (place(trial.workload, trial.cores), trial.arm, trial.testbed, trial.metrics[name])
            for trial in trials
            for name in THROUGHPUT
            if name in trial.metrics and trial.rate is None
        ],
        columns=["place", "arm", "testbed", "served"],
    )
    usual = served.groupby(["place", "arm", "testbed"]).served.transform("median")
    slow = Counter((row.place, row.arm) for row in each(served[served.served < SLOW * usual]))
    listed = "; ".join(f"{counted(count, 'trial')} of {arm}, {where}" for (where, arm), count in slow.items())
    return [f"Slow, with less than {SLOW:.0%} of what is usual for that variant: {listed}."] if slow else []


def _constant(trials: list[Trial]) -> list[str]:
    """A sentence for each metric of which all trials gave the same value. Two real measurements never agree to the last
    digit, so it was not measured."""
    values: dict[tuple[str, str], set[float]] = {}
    for trial in trials:
        for name in (*THROUGHPUT, *COSTS):
            if name in trial.metrics and not (trial.rate and name in THROUGHPUT):
                values.setdefault((place(trial.workload, trial.cores), name), set()).add(trial.metrics[name])
    return [
        f"{where}: all trials gave the same {METRICS[name].called}, so it was not measured."
        for (where, name), seen in values.items()
        if len(seen) == 1 and len(trials) > 1
    ]


def _busy_before(run: Run) -> list[str]:
    load, cpus = (run.fingerprint.get(name, "").split() for name in ("load before", "cpus"))
    if not load or not cpus or float(load[0]) <= BUSY * int(cpus[0]):
        return []
    return [f"The machine was busy before the run began: its load average was {load[0]} on {cpus[0]} CPUs."]


def _method(run: Run, trials: list[Trial]) -> list[str]:
    options = run.options
    planned = (
        f"{options.blocks} blocks were planned, of {options.seconds} s of load per trial. Within a block each arm runs "
        "twice at each core count, in an order drawn from the seed and then mirrored (ABBA), so that a linear drift "
        f"of the machine cancels. The seed is {options.seed}."
    )
    sentences = [planned]
    if not is_emulated(run) and not run.options.observes:
        sentences.append(
            "A ratio to base is the Hodges-Lehmann estimate from pairs, one in each half of each block; its 95 % "
            "interval is Wilcoxon's, so about one control in twenty is off by chance. A level, such as CPS, is the "
            "mean of the blocks' means with Student's interval."
        )
    if not is_emulated(run):
        sentences += testbeds.method(trials)
    if options.latency_share is not None:
        sentences.append(
            f"Each trial has two loads: one at full speed and then, for the latencies alone, one at "
            f"{options.latency_share:.0%} of what base takes, in which a latency runs from when the request was due."
        )
    elif any(P99 in trial.metrics and trial.rate is None for trial in trials):
        sentences.append(
            "At full speed a latency is that of a closed loop, from when the request is sent: a slow answer delays the "
            "next request, and the handshake is not in it. wrk adds samples of its own for slow requests. Only a "
            "latency at a given rate runs from when the request was due."
        )
    if options.limits:
        sentences.append(f"Not as usual: {', '.join(f'{name} {value}' for name, value in options.limits.items())}.")
    if run.wall_seconds > 0:
        share = sum(trial.seconds for trial in trials) / run.wall_seconds
        sentences.append(f"Of {run.wall_seconds:.0f} s from start to end, {share:.0%} was measuring.")
    return sentences


def _data_url(svg: Path) -> str:
    return _svg_url(svg.read_bytes())


def _svg_url(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
