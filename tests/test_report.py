"""What a stranger reads in a report: each outcome in words, nothing that was not asked, and no riddles."""

import re

import pandas as pd
import pytest
from rich.console import Console

from analysis.figures import draw_figures
from analysis.outcome import print_outcome
from analysis.report import outcomes, warnings, write_report
from analysis.results import Result, result
from analysis.summary import in_short
from analysis.tables import html, readable_summary, readable_verdicts
from analysis.verdicts import EXPLORATORY
from bench.experiment import figure_specs
from records.metrics import METRICS, P99, THROUGHPUT
from records.run import FigureSpec, Primary, Run
from tests.harness.runs import TRUTH, a_run, trials_of

PARTS = ["listen-table", "flow-deliver", "fast-epoll-alone"]  # of no effect


def asked(changes: dict, **of_the_run) -> Run:
    run = a_run(blocks=8, cores=[2], **of_the_run)
    return run.model_copy(update={"options": run.options.model_copy(update=changes)})


def measured(directory, run: Run, slower: float = 1.3) -> Result:
    """Of parts without an effect, and a fastsocket whose slowest requests take so many times as long."""
    trials = [
        trial.model_copy(
            update={
                "rate": 1000.0 if run.options.at_rate(trial.workload) else None,
                "metrics": {
                    **trial.metrics,
                    P99: (10 + trial.index % 3 / 100) * (slower if trial.arm == "fastsocket" else 1),
                },
            }
        )
        for trial in trials_of(run, lambda index, arm, cores: (1 + index % 5 / 100) * TRUTH.get(arm, 1))
    ]
    return result(directory, run, trials)


TAIL = Primary(workload="nginx", of="fastsocket", over="base", metric=P99)


def test_the_primary_outcome_is_among_the_outcomes_and_named_whatever_it_is_about(tmp_path):
    found = measured(tmp_path, asked({"share": 0.6, "primary": TAIL}))
    first = outcomes(found.run, found.verdicts)[0]
    assert re.match(r"nginx on 2 cores: fastsocket lies above base, ratio 1\.30\d in 99th percentile of the", first)
    assert "the primary outcome" in first
    shown = readable_verdicts(found.run, found.verdicts)
    assert shown.metric.str.len().min() > 0 and "99th percentile of the latency" in set(shown.metric)


def test_every_metric_can_be_named_in_a_sentence():
    assert [metric.name for metric in METRICS.values() if "_" in metric.called or not metric.called] == []


def test_words_stand_left_and_numbers_right():
    page = html(pd.DataFrame({"metric": ["CPS", "99th percentile"], "ratio": ["reference", "1.1 (1.0–1.2)"]}), "t")
    assert (
        re.findall(r'<td headers="t-(\w+)" class="gt_row gt_(left|right)">', page)
        == [
            ("metric", "left"),
            ("ratio", "right"),
        ]
        * 2
    )


def test_parts_that_change_nothing_share_a_sentence(tmp_path):
    run = asked({"variants": ["base", *PARTS, "fastsocket"], "primary": None})
    found = measured(tmp_path, run)
    ours, others = outcomes(run, found.verdicts)
    assert "fastsocket is faster than base, ratio 1." in ours
    assert "no difference seen between base and listen-table, flow-deliver and fast-epoll-alone; " in others
    assert re.search(r"; \d\.\d to \d\.\d % would have been seen\.$", others)


def test_what_was_not_asked_is_folded_away_and_not_printed(tmp_path, capsys):
    found = measured(tmp_path, asked({"variants": ["base", *PARTS, "fastsocket"]}))
    page = write_report(tmp_path, [found]).read_text()
    folded = "".join(re.findall(r"<details>.*?</details>", page, re.DOTALL))
    print_outcome([found], tmp_path / "report.html")
    assert "fast-epoll-alone / flow-deliver" in folded
    for shown in (re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL), capsys.readouterr().out):
        assert "fast-epoll-alone / flow-deliver" not in shown and "fast-epoll-alone / base" in shown


def test_a_narrow_terminal_loses_no_character(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("analysis.outcome._console", lambda: Console(width=80))
    found = measured(tmp_path, asked({"variants": ["base", *PARTS, "fastsocket"], "primary": TAIL}))
    print_outcome([found], tmp_path / "report.html")
    said = capsys.readouterr().out
    assert "…" not in said and max(map(len, said.splitlines()[:-1])) <= 80
    ratios = readable_verdicts(found.run, found.verdicts[found.verdicts.role != EXPLORATORY]).ratio
    assert len(ratios) == 5 and all(ratio in said for ratio in ratios)


def test_at_a_given_rate_nothing_is_said_of_what_was_served(tmp_path):
    run = asked({"share": 0.6})
    trials = [
        trial.model_copy(update={"metrics": {**trial.metrics, "cps": 1000.0}})
        for trial in measured(tmp_path, run).trials
    ]
    found = result(tmp_path, run, trials)
    assert not any("was not measured" in sentence for sentence in warnings(run, trials))
    assert set(readable_summary(run, found.summary)["ratio to base"]) == {"reference", "fixed"}
    assert not set(readable_verdicts(run, found.verdicts).metric) & {METRICS[name].called for name in THROUGHPUT}


def test_a_run_without_an_outcome_reports_none(tmp_path):
    found = measured(tmp_path, asked({"observes": ["profile"]}))
    page = write_report(tmp_path, [found]).read_text()
    assert found.verdicts.low.notna().any() and set(found.verdicts.role) == {EXPLORATORY}
    for word in ("Verdicts", "ratio to base", "Exploratory ratios", "Hodges-Lehmann"):
        assert word not in page, word


def test_local_reads_are_those_at_full_speed_where_there_is_such_a_run(tmp_path):
    calm, busy = measured(tmp_path, asked({"share": 0.3, "blocks": 9})), measured(tmp_path, asked({}))
    idle = calm.summary.assign(estimate=calm.summary.estimate.where(calm.summary.metric != "passive_local_percent", 69))
    found = in_short([Result(tmp_path, calm.run, calm.trials, idle), busy]).found
    (local,) = (sentence for sentence in found if sentence.startswith("Reads on the packet's own core"))
    assert re.search(r"nginx 99\.9 % with Fastsocket \(without: [45]\d\.\d %\)", local)


@pytest.mark.parametrize("kind", ["tail", "effects"])
def test_a_logarithmic_axis_has_plain_numbers(tmp_path, kind):
    figure = {"tail": "latency-30", "effects": "speedup"}[kind]
    specs = (
        [FigureSpec(id=figure, kind="tail", title="Latency")] if kind == "tail" else figure_specs("speedup", ["nginx"])
    )
    run = asked({"figures": specs})
    trials = [
        trial.model_copy(update={"metrics": {**trial.metrics, "cps": 1000.0 * (9 if trial.arm == "fastsocket" else 1)}})
        for trial in measured(tmp_path, run, slower=9).trials
    ]
    draw_figures(result(tmp_path, run, trials))
    drawn = re.findall(r"<!-- (.*?) -->", (tmp_path / "figures" / f"{figure}.svg").read_text())
    assert "5" in drawn and "4" not in drawn and not any("10^" in text for text in drawn)


def test_a_title_names_its_server_once(tmp_path):
    run = asked({"figures": figure_specs("single-core-nginx", ["nginx"]), "variants": ["base", "no-skb-pool"]})
    draw_figures(measured(tmp_path, run))
    drawn = re.findall(r"<!-- (.*?) -->", (tmp_path / "figures" / "single-core-nginx.svg").read_text())
    assert " ".join(drawn).count("nginx on one core") == 1 and "ratio of throughputs of nginx on 2 cores" in " ".join(
        drawn
    )


def test_a_related_system_has_its_source_apart(tmp_path):
    run = asked({"figures": [FigureSpec(id="related-systems", kind="related", title="Related systems")]})
    page = write_report(tmp_path, [measured(tmp_path, run)]).read_text()
    table = re.search(r"<table.*?socket api.*?</table>", page, re.DOTALL)
    assert table and "socket(7)" not in table[0].rpartition("<table")[2]
    assert re.search(r"The sources of related-systems</summary>.*?socket\(7\)", page, re.DOTALL)
