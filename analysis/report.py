"""The report of a run: one HTML file that needs no network, the outcome first and then all it rests on."""

from base64 import b64encode
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from analysis.emulated import BANNER, is_emulated
from analysis.estimates import controls, counted, each, off_controls, outcome, place
from analysis.figures import draw_figures
from analysis.figures.profile import FLAME
from analysis.results import Result, results_in
from analysis.summary import OURS, plain_summary
from analysis.tables import (
    cpu_by_core,
    failures,
    html,
    missing,
    readable_comparisons,
    readable_cpu,
    readable_summary,
    write_tables,
)
from analysis.templates import template
from records.metrics import METRICS
from records.run import Run
from records.trials import BASE, Trial

TEMPLATE = Path(__file__).with_name("report.html.j2")
_MORE, _LESS = (  # in words, by the direction in which a metric is better
    {"higher": "is faster than", "lower": "costs more than"},
    {"higher": "is slower than", "lower": "costs less than"},
)


def write_all(directory: Path) -> Path:
    """Write estimates, tables, figures and the report of a run directory, or of one with several runs in it.

    Returns the report's path. Raises RecordError when the directory holds no run, a damaged one, or one without trials.
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
    path = directory / "report.html"
    path.write_text(
        template(TEMPLATE).render(
            banner=BANNER if any(is_emulated(result.run) for result in results) else "",
            in_short=plain_summary(results),
            sections=[_section(result) for result in results],
            run=results[0].run,
            versions={tool: said for result in results for tool, said in result.run.versions.items()},
        )
    )
    return path


def _section(result: Result) -> dict[str, Any]:
    run, trials, summary = result.run, result.trials, result.summary
    drawn = {path.stem: path for path in draw_figures(result) if path.suffix == ".svg"}
    figures = [(spec, _data_url(drawn[spec.id])) for spec in run.options.figures]
    if run.options.why_not:
        return {"run": run, "why_not": run.options.why_not, "figures": figures}
    compared = readable_comparisons(result.compared)
    name = run.options.experiment
    return {
        "run": run,
        "why_not": "",
        "outcomes": [] if is_emulated(run) else outcomes(run, summary),
        "control": None if is_emulated(run) else _control(summary),
        "warnings": warnings(run, trials),
        "summary_table": Markup(html(readable_summary(run, summary), f"{name}-summary")),
        "comparisons_table": Markup(html(compared, f"{name}-comparisons")) if len(compared) else None,
        "figures": figures,
        "flame_graphs": [(stem, _data_url(path)) for stem, path in drawn.items() if stem.startswith(FLAME)],
        "cpu_table": None if is_emulated(run) else Markup(html(readable_cpu(cpu_by_core(run, trials)), f"{name}-cpu")),
        "method": _method(run, trials),
    }


def outcomes(run: Run, summary: pd.DataFrame) -> list[str]:
    """A sentence per workload and core count: each variant against base, as far as its interval allows a claim."""
    against = sorted(
        (variant for variant in run.options.variants if variant != BASE), key=lambda variant: variant != OURS
    )
    rows = {(row.workload, row.cores, row.variant): row for row in each(outcome(run, summary))}
    return [
        f"{place(workload, cores)}: "
        + "; ".join(
            _claim(variant, rows.get((workload, cores, variant)))
            for variant in against
            if variant not in run.options.lacking.get(workload, {})
        )
        + "."
        for workload in run.options.workloads
        for cores in sorted(run.options.cores)
    ]


def warnings(run: Run, trials: list[Trial]) -> list[str]:
    """What a reader has to know before trusting the numbers, a sentence each."""
    return [
        *_incomplete(run, trials),
        *_sharing(run),
        *_lacking(run),
        *_failed(run, trials),
        *_spoilt(trials),
        *(f"Not available here: {sentence}." for sentence in missing(run, trials)),
    ]


def _claim(variant: str, row: Any) -> str:
    if row is None:
        return f"{variant} has no measured trial"
    if pd.isna(row.ratio_low):
        return f"{variant} has too few complete blocks for an interval, so no claim is made"
    interval = f"95 % interval {row.ratio_low:.3f}–{row.ratio_high:.3f}"
    return f"{_verdict(variant, row)}, {row.ratio_to_base:.3f} times its {METRICS[row.metric].called} ({interval})"


def _verdict(variant: str, row: Any) -> str:
    better = METRICS[row.metric].better
    if row.ratio_low > 1:
        return f"{variant} {_MORE[better]} base"
    if row.ratio_high < 1:
        return f"{variant} {_LESS[better]} base"
    return f"no difference seen between {variant} and base"


def _control(summary: pd.DataFrame) -> dict[str, Any]:
    """Whether base against itself is 1, as it must be. Without an interval there is nothing to tell."""
    if off := off_controls(summary):
        doubt = "Effects of that size there may be no effects of the variants."
        return {"state": "off", "sentences": [*map(str, off), doubt]}
    checked = controls(summary)
    if checked.empty:
        return {
            "state": "unknown",
            "sentences": [
                "No A/A control with an interval in this run: nothing tells how far apart two equal arms come out."
            ],
        }
    return {
        "state": "fine",
        "sentences": [f"The A/A control is fine: base against itself includes 1 in all {len(checked)} settings."],
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


def _lacking(run: Run) -> list[str]:
    return [
        f"{workload} is not run as {variant}: {why}."
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


def _method(run: Run, trials: list[Trial]) -> list[str]:
    options = run.options
    planned = (
        f"{options.blocks} blocks were planned, of {options.seconds} s of load per trial. Within a block each arm runs "
        "twice at each core count, in an order drawn from the seed and then mirrored (ABBA), so that a linear drift "
        f"of the machine cancels. The seed is {options.seed}."
    )
    sentences = [planned]
    if not is_emulated(run):
        sentences.append(
            "A ratio to base is the Hodges-Lehmann estimate from pairs, one in each half of each block; its 95 % "
            "interval is Wilcoxon's, so about one control in twenty is off by chance. A level, such as CPS, is the "
            "mean of the blocks' means with Student's interval."
        )
    if options.limits:
        sentences.append(f"Not as usual: {', '.join(f'{name} {value}' for name, value in options.limits.items())}.")
    if run.wall_seconds > 0:
        share = sum(trial.seconds for trial in trials) / run.wall_seconds
        sentences.append(f"Of {run.wall_seconds:.0f} s from start to end, {share:.0%} was measuring.")
    return sentences


def _data_url(svg: Path) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.read_bytes()).decode()}"
