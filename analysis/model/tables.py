"""The answers of the model as tables for readers, and the sentence that judges it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from analysis.estimates import each
from analysis.model.answers import LOAD, SPARE
from analysis.tables import markdown

GOOD = 0.10  # a good model's median error at held-out points is at most this


def judgement(held_out: pd.DataFrame) -> str:
    """Sentences on how far off the predictions of held-out points are, and those of the Universal Scalability Law."""
    off, law = held_out.error.abs(), held_out.law_error.abs()
    inside = ((held_out.low <= held_out.published) & (held_out.published <= held_out.high)).sum()
    return (
        f"Held-out points: median error {off.median():.1%}, {(off <= GOOD).sum()} of {len(off)} within {GOOD:.0%}, "
        f"largest {off.max():.0%}; {inside} of {len(off)} inside their interval. "
        f"The Universal Scalability Law: median {law.median():.1%}, largest {law.max():.0%}."
    )


def readable(answers: dict[str, pd.DataFrame], demand: int) -> dict[str, pd.DataFrame]:
    """Each answer for readers, as a table with texts in its cells."""
    writers: dict[str, Callable[[Any], dict[str, str]]] = {
        "held-out": _held_out,
        "assumptions": _assumptions,
        "parameters": _parameters,
        "other-checks": _other_checks,
        "beyond": _beyond,
        "switches": _switches,
        "fleet": partial(_fleet, demand=demand),
    }
    return {name: pd.DataFrame([writers[name](row) for row in each(table)]) for name, table in answers.items()}


def page(answers: dict[str, pd.DataFrame], demand: int) -> str:
    """The judgement and all tables in Markdown."""
    tables = readable(answers, demand).items()
    return "\n".join(
        [judgement(answers["held-out"]), ""] + [f"## {name}\n\n{markdown(table)}" for name, table in tables]
    )


def _held_out(row: Any) -> dict[str, str]:
    return {
        "curve": row.curve,
        "cores": f"{row.cores}",
        **_judged(row, "published, kcps"),
        "error of the USL": f"{row.law_error:+.0%}",
    }


def _assumptions(row: Any) -> dict[str, str]:
    return {
        "assumption": row.assumption,
        "median error of all": f"{row.median_error:.1%}",
        "nginx, base, 16, 20, 24 cores": _errors(row.nginx),
        "HAProxy, base": _errors(row.haproxy),
    }


def _errors(errors: list[float]) -> str:
    return ", ".join(f"{error:+.0%}" for error in errors)


def _parameters(row: Any) -> dict[str, str]:
    return {
        "curve": row.curve,
        "fitted to": f"≤ {row.known} cores",
        **{
            f"{name}, µs": f"{value:.1f} ({low:.1f}–{high:.1f})"
            for name, value, low, high in (
                ("local", row.local, row.local_low, row.local_high),
                ("with the lock", row.hold, row.hold_low, row.hold_high),
                ("remote", row.remote, row.remote_low, row.remote_high),
            )
        },
        "spins": f"{row.spun}",
        "spins, by all points": f"{row.spun_by_all:.1f}",
    }


def _other_checks(row: Any) -> dict[str, str]:
    return {"what": row.what, **_judged(row, "published")}


def _beyond(row: Any) -> dict[str, str]:
    return {
        "curve": row.curve,
        "cores": f"{row.cores}",
        "predicted, kcps": _with_interval(row.predicted, row),
        "limit": row.limit,
        "CPU time spent waiting": f"{row.waiting:.0%}",
    }


def _switches(row: Any) -> dict[str, str]:
    return {
        "server": row.server,
        "switch": row.switch,
        "cores": f"{row.cores}",
        "times": f"{row.ratio:.2f} ({row.low:.2f}–{row.high:.2f})",
    }


def _fleet(row: Any, demand: int) -> dict[str, str]:
    machines = f"machines for {demand:,} connections/s at {LOAD:.0%}, and {SPARE} more"
    return {
        "curve": row.curve,
        "cores": f"{row.cores}",
        "of a machine": row.source,
        machines: f"{row.machines} ({row.low}–{row.high})",
    }


def _judged(row: Any, published: str) -> dict[str, str]:
    """The cells of a published value, its prediction and the error. published: the heading of the published value."""
    return {
        published: f"{row.published:.0f}",
        "predicted": _with_interval(row.predicted, row),
        "error": f"{row.error:+.0%}",
    }


def _with_interval(value: float, row: Any) -> str:
    return f"{value:.0f} ({row.low:.0f}–{row.high:.0f})"
