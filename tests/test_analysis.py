"""The analysis against synthetic trials whose effects are known."""

import math
import re
import warnings as python_warnings
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from rich.console import Console

from analysis.estimates import COLUMNS, comparisons, contrasts, each, estimate
from analysis.figures import FigureError, components, draw_figures, figure_ids, require_figure
from analysis.figures.effects import published
from analysis.live import LiveTable
from analysis.outcome import print_outcome
from analysis.report import outcomes, warnings, write_all, write_report
from analysis.results import Result, result, results_in
from analysis.scale import SWEEP, enlarge
from analysis.statistics import MIN_BLOCKS
from analysis.summary import in_short
from analysis.tables import cpu_by_core, readable_summary, write_tables
from analysis.verdicts import judge
from bench.experiment import Collection, Experiment, figure_specs, names, read
from bench.schedule import schedule
from records.kinds import KINDS
from records.metrics import COST, METRICS
from records.run import Effect, Primary, RecordError, Run, runs_in, write_run
from records.trials import Trial, append_trial, failed_trial
from tests.harness.runs import BLOCKS, TRUTH, a_run, trials_of

NO_PROBE = "tracing is not permitted"

few = settings(max_examples=20, deadline=None)


def steady(index: int, arm: str, cores: int) -> float:
    """The true effect, with a control that is 1 % off base to one side and the other from block to block."""
    return 1000 * TRUTH[arm] * (1 if arm != "control" else 1.01 if index // 16 % 2 else 0.99)


def biased(index: int, arm: str, cores: int) -> float:
    """As steady(), but for a control on one core that is 10 % above base."""
    return steady(index, arm, cores) * (1.1 if arm == "control" and cores == 1 else 1)


def without(trial: Trial, metric: str, **changes) -> Trial:
    kept = {name: value for name, value in trial.metrics.items() if name != metric}
    return trial.model_copy(update={"metrics": kept, **changes})


def served(run: Run, cps) -> pd.DataFrame:
    """The estimates of throughput alone, which are quicker to have."""
    return estimate(
        [trial.model_copy(update={"metrics": {"cps": trial.metrics["cps"]}}) for trial in trials_of(run, cps)]
    )


def one(summary: pd.DataFrame, variant="fastsocket", cores=2, metric="cps") -> pd.Series:
    [(_, row)] = summary.query("variant == @variant and cores == @cores and metric == @metric").iterrows()
    return row


def stored(directory, run: Run, trials: list[Trial]):
    write_run(directory, run)
    for trial in trials:
        append_trial(directory, trial)
    return directory


# Estimates


@few
@given(factor=st.floats(0.05, 20), base=st.lists(st.floats(10, 1e6), min_size=BLOCKS, max_size=BLOCKS))
def test_a_constant_factor_is_recovered_whatever_the_blocks_do(factor, base):
    run = a_run(cores=[2])
    per_block = len(schedule(run.options)) // BLOCKS
    summary = served(run, lambda index, arm, cores: base[index // per_block] * (factor if arm == "fastsocket" else 1))
    found = one(summary)
    assert [found.ratio_to_base, found.ratio_low, found.ratio_high] == pytest.approx([factor] * 3)
    assert one(summary, "latest").ratio_to_base == pytest.approx(1)


@few
@given(drift=st.floats(-0.004, 0.02))
def test_a_linear_drift_cancels_in_the_means_and_an_exponential_one_in_the_ratios(drift):
    run = a_run(cores=[2])
    means = served(run, lambda index, arm, cores: 1000 * (1 + drift * index)).estimate
    assert means.to_numpy() == pytest.approx(means.iloc[0], rel=1e-12)
    compound = served(run, lambda index, arm, cores: 1000 * TRUTH[arm] * math.exp(drift * index))
    assert one(compound).ratio_to_base == pytest.approx(1.2, rel=1e-12)


@few
@given(scale=st.floats(1e-3, 1e3))
def test_the_unit_of_a_metric_changes_no_ratio(scale):
    run = a_run(blocks=10, cores=[2])
    rates = [trial.metrics["cps"] for trial in trials_of(run)]

    def in_units_of(unit: float):
        return one(served(run, lambda index, arm, cores: unit * rates[index]))

    was, now = in_units_of(1), in_units_of(scale)
    assert now.ratio_to_base == pytest.approx(was.ratio_to_base, rel=1e-12)
    assert now.estimate == pytest.approx(scale * was.estimate, rel=1e-12)
    for bound in ("ratio_low", "ratio_high"):  # rounding decides ties among the resamples, so not to the last digit
        assert now[bound] == pytest.approx(was[bound], rel=1e-3)
    for bound in ("ci_low", "ci_high"):
        assert now[bound] == pytest.approx(scale * was[bound], rel=1e-3)


@few
@given(values=st.lists(st.floats(0, 1e9), min_size=40, max_size=40))
def test_no_values_make_the_estimates_warn_or_lose_the_mean(values):
    run = a_run(blocks=5, cores=[2])
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("error")
        summary = served(run, lambda index, arm, cores: values[index])
    bounds = summary[["ci_low", "estimate", "ci_high"]].dropna()
    assert (bounds.ci_low <= bounds.ci_high).all()
    assert 10 * summary.estimate.sum() == pytest.approx(sum(values), rel=1e-9)


def test_intervals_hold_the_estimate_and_shrink_with_more_blocks():
    narrow, wide = (one(estimate(trials_of(a_run(blocks=blocks)))) for blocks in (30, 5))
    for row in (narrow, wide):
        assert row.ratio_low < row.ratio_to_base < row.ratio_high
        assert row.ci_low < row.estimate < row.ci_high
    assert narrow.ratio_low < 1.2 < narrow.ratio_high
    assert narrow.ratio_high - narrow.ratio_low < wide.ratio_high - wide.ratio_low
    assert (narrow.n, wide.n) == (30, 5)


def test_the_same_trials_give_the_same_numbers():
    trials = trials_of(a_run())
    pd.testing.assert_frame_equal(estimate(trials), estimate(trials))


def test_base_is_the_reference_and_the_columns_are_those_promised():
    summary = estimate(trials_of(a_run()))
    assert (
        list(summary.columns)
        == COLUMNS
        == [
            "workload",
            "variant",
            "cores",
            "metric",
            "estimate",
            "ci_low",
            "ci_high",
            "n",
            "ratio_to_base",
            "ratio_low",
            "ratio_high",
            "p",
        ]
    )
    base = one(summary, "base")
    assert base.ratio_to_base == 1 and math.isnan(base.ratio_low) and math.isnan(base.ratio_high)


@pytest.mark.parametrize("lost", range(1, 8))
def test_a_torn_last_block_brings_no_drift_into_ratios(lost):
    run = a_run(cores=[2])
    trials = trials_of(run, lambda index, arm, cores: 1000 * TRUTH[arm] * math.exp(0.05 * index))[:-lost]
    summary = estimate(trials)
    for arm in ("latest", "fastsocket", "control"):
        assert one(summary, arm).ratio_to_base == pytest.approx(TRUTH[arm], rel=1e-12)
    last = [trial.arm for trial in trials if trial.block == BLOCKS - 1]
    assert one(summary).n == BLOCKS - 1 + ("fastsocket" in last)


@pytest.mark.parametrize("blocks", [1, MIN_BLOCKS - 1])
def test_too_few_blocks_have_estimates_but_no_intervals(blocks):
    row = one(estimate(trials_of(a_run(blocks=blocks), lambda index, arm, cores: 1000 * TRUTH[arm] + index)))
    assert row.estimate == pytest.approx(1200, rel=0.1) and row.n == blocks
    assert row.ratio_to_base == pytest.approx(1.2, rel=0.01)
    assert row[["ci_low", "ci_high", "ratio_low", "ratio_high"]].isna().all()


def test_equal_values_have_an_interval_without_width():
    row = one(estimate(trials_of(a_run(), lambda index, arm, cores: 1000)))
    assert (row.ci_low, row.ci_high) == (1000, 1000)
    assert (row.ratio_low, row.ratio_high) == (1, 1)


@pytest.mark.parametrize(
    "metric, values, limits",
    [
        ("passive_local_percent", [100, 100, 100, 100, 96], (0, 100)),
        ("passive_local_percent", [0, 0, 0, 0, 4], (0, 100)),
        ("errors", [0, 0, 0, 0, 50], (0, np.inf)),
    ],
)
def test_an_interval_stays_within_what_can_be(metric, values, limits):
    """Where most blocks are at a limit, Student's interval goes past it."""
    run = a_run(blocks=5, cores=[2])
    trials = [trial.model_copy(update={"metrics": {metric: float(values[trial.block])}}) for trial in trials_of(run)]
    row = one(estimate(trials), metric=metric)
    assert limits[0] <= row.ci_low <= row.estimate <= row.ci_high <= limits[1]
    assert limits[0] == row.ci_low or limits[1] == row.ci_high or metric == "errors"


def test_what_is_not_positive_has_no_ratio():
    summary = estimate(trials_of(a_run()))
    errors = one(summary, metric="errors")
    assert errors.estimate == 0 and errors[["ratio_to_base", "ratio_low", "ratio_high"]].isna().all()


def test_a_metric_that_trials_lack_is_absent_and_never_zero():
    trials = trials_of(a_run())
    nowhere = estimate([without(trial, "passive_local_percent") for trial in trials])
    assert "passive_local_percent" not in set(nowhere.metric)
    torn = estimate([without(trial, "passive_local_percent") if trial.block else trial for trial in trials])
    assert one(torn, metric="passive_local_percent").n == 1


def test_a_control_that_is_off_is_named_and_only_that(tmp_path):
    run = a_run()
    assert not any(control.is_off for control in result(tmp_path, run, trials_of(run, steady)).controls)
    [off] = [control for control in result(tmp_path, run, trials_of(run, biased)).controls if control.is_off]
    sentence = str(off)
    assert "nginx on 1 core:" in sentence and re.search(r"1\.100 \(1\.0\d+–1\.1\d+\) in CPS", sentence)


def test_requests_per_second_count_as_throughput_too(tmp_path):
    def as_rps(trial):
        rps = trial.metrics["cps"] * (0.8 if trial.control else 1)
        return trial.model_copy(update={"metrics": {"rps": rps}})

    run = a_run()
    found = result(tmp_path, run, [as_rps(trial) for trial in trials_of(run)]).controls
    assert len(found) == 2 and all(control.is_off and "RPS" in str(control) for control in found)


def test_a_control_is_of_the_outcome_and_fails_where_it_is_wider_than_the_claim(tmp_path):
    """At a given rate the outcome is the cost. The run's noise is in the control alone."""
    run = a_run(cores=[2])
    run = run.model_copy(update={"options": run.options.model_copy(update={"rates": {"nginx": 1000}})})
    noise = np.random.default_rng(1)

    def at_cost(trial, spread):
        cost = 100 / TRUTH[trial.arm] ** 0.5 * math.exp(noise.normal(0, spread if trial.control else 0.001))
        return trial.model_copy(update={"metrics": {**trial.metrics, "cpu_us_per_request": cost}})

    [fine], [wide] = (
        result(tmp_path, run, [at_cost(trial, spread) for trial in trials_of(run)]).controls for spread in (0.01, 0.3)
    )
    assert (fine.metric, wide.metric) == ("cpu_us_per_request", "cpu_us_per_request")
    assert not fine.fails and "would often be missed" in str(fine)
    assert wide.is_wide and not wide.is_off and "is wider than the claim of 9." in str(wide)


def test_one_ratio_is_primary_and_the_others_are_adjusted_or_exploratory(tmp_path):
    run = a_run(blocks=10, cores=[1, 2])
    named = Primary(workload="nginx", of="fastsocket")
    run = run.model_copy(update={"options": run.options.model_copy(update={"primary": named})})
    verdicts = result(tmp_path, run, trials_of(run)).verdicts
    [primary] = verdicts[verdicts.role == "primary"].itertuples()
    assert (primary.cores, primary.variant, primary.over, primary.metric) == (2, "fastsocket", "base", "cps")
    assert primary.p_adjusted == primary.p and primary.verdict == "higher"
    family = verdicts[verdicts.role == "adjusted"]
    assert set(zip(family.variant, family.cores)) == {("latest", 1), ("latest", 2), ("fastsocket", 1)}
    assert (family.p_adjusted >= family.p).all() and set(family.metric) == {"cps"}
    rest = verdicts[verdicts.role == "exploratory"]
    assert rest.p_adjusted.isna().all() and {"latency_p99_ms", "cpu_us_per_request"} <= set(rest.metric)


def test_what_is_too_likely_among_so_many_is_no_difference():
    """Its own interval leaves out 1."""
    run = a_run(cores=[2])
    ratios = {"ratio_to_base": 1.01, "ratio_low": 1.001, "ratio_high": 1.02}
    summary = pd.DataFrame(
        [
            {"workload": "nginx", "cores": 2, "metric": "cps", "variant": variant, **ratios}
            for variant in run.options.variants
        ]
    ).assign(p=[np.nan, 0.04, 0.02])
    nothing = pd.DataFrame(columns=["workload", "cores", "metric", "variant", "over", "ratio", "low", "high", "p"])
    verdicts = judge(run, summary, nothing).set_index("variant")
    assert verdicts.p_adjusted.to_dict() == pytest.approx({"latest": 0.04, "fastsocket": 0.04})
    again = judge(run, summary.assign(p=[np.nan, 0.04, 0.03]), nothing).set_index("variant")
    assert set(verdicts.verdict) == {"higher"} and set(again.verdict) == {"no difference"}


# Tables


def test_variants_are_compared_with_each_other_as_they_are_with_base():
    run = a_run(cores=(2,))
    compared, cost = sorted(
        comparisons(trials_of(run), run.options.variants).itertuples(),
        key=lambda row: row.metric == "cpu_us_per_request",
    )
    assert (cost.variant, cost.over, cost.metric) == ("fastsocket", "latest", "cpu_us_per_request")
    assert (compared.variant, compared.over, compared.metric) == ("fastsocket", "latest", "cps")
    assert compared.low < compared.ratio < compared.high
    assert compared.ratio == pytest.approx(TRUTH["fastsocket"] / TRUTH["latest"], rel=0.03)


def test_at_a_given_rate_the_outcome_is_the_cost(tmp_path):
    run = a_run(cores=(2,))
    run = run.model_copy(update={"options": run.options.model_copy(update={"rates": {"nginx": 1000}})})
    trials = [
        trial.model_copy(
            update={"metrics": {**trial.metrics, "cpu_us_per_request": 90 / TRUTH[trial.arm] + trial.index % 7 / 10}}
        )
        for trial in trials_of(run)
    ]
    sentence, _ = outcomes(run, result(tmp_path, run, trials).verdicts)
    assert "fastsocket costs less than base, ratio 0.8" in sentence and "CPU time per request" in sentence


def test_the_tables_of_a_run_hold_what_was_measured(tmp_path):
    run = a_run(unavailable={"contentions_per_connection": NO_PROBE})
    trials = trials_of(run)
    summary = estimate(trials)
    write_tables(Result(tmp_path, run, trials, summary))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "summary.csv"), summary, check_dtype=False)
    flat = pd.read_parquet(tmp_path / "trials.parquet")
    assert flat.cps.to_list() == [trial.metrics["cps"] for trial in trials]
    assert set(flat.arm) == set(TRUTH)
    text = (tmp_path / "tables" / "summary.md").read_text()
    assert f"not available here: contentions per connection: {NO_PROBE}" in text
    lines = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 8 and len(set(lines)) == 1


def test_readers_see_what_is_missing_and_no_ratio_without_its_interval():
    run = a_run(blocks=1, unavailable={"cpu_us_per_request": NO_PROBE})
    table = readable_summary(run, estimate([without(trial, "latency_p99_ms") for trial in trials_of(run)]))
    assert list(table["variant"]) == ["base", "latest", "fastsocket", "control"] * 2
    assert set(table["ratio to base"]) == {"reference", "no interval"}
    for heading in ("p99, ms", METRICS[COST].heading, "accept local, %"):
        assert set(table[heading]) == {"not available here"}
    assert set(table["errors per trial"]) == {"0.0"} and set(table["p50, ms"]) == {"1.50"}


def test_cpu_time_is_shown_as_the_share_of_each_state():
    run = a_run()
    shares = cpu_by_core(run, trials_of(run))
    assert list(shares.variant.unique()) == ["base", "latest", "fastsocket", "control"]
    assert shares.user_percent.to_numpy() == pytest.approx(25) and shares.idle_percent.to_numpy() == pytest.approx(5)
    assert shares.filter(like="_percent").sum(axis=1).to_numpy() == pytest.approx(100)
    assert list(shares.query("variant == 'latest' and cores == 2").cpu) == [0, 1]


# Effects


@few
@given(factors=st.lists(st.floats(0.5, 2), min_size=2, max_size=2), interaction=st.floats(0.5, 2))
def test_a_factorial_design_finds_what_two_parts_bring_together(factors, interaction):
    one_part, other = factors
    truth = {"base": 1, "latest": one_part, "fastsocket": other, "control": one_part * other * interaction}
    trials = [
        trial.model_copy(update={"variant": trial.arm, "control": False})
        for trial in trials_of(a_run(cores=[2]), lambda index, arm, cores: (1000 + index // 8) * truth[arm])
    ]
    found = contrasts(
        trials,
        {
            "alone": Effect(of=["latest"], over=["base"]),
            "interaction": Effect(of=["control", "base"], over=["latest", "fastsocket"]),
            "of a variant that was not run": Effect(of=["rfs"], over=["base"]),
        },
    )
    assert found.set_index("effect").ratio.to_dict() == pytest.approx({"alone": one_part, "interaction": interaction})


# Figures


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    run = a_run(workloads=["nginx", "redis"], unavailable={"passive_local_percent": NO_PROBE})
    directory = tmp_path_factory.mktemp("drawn")
    return directory, run, draw_all(directory, run)


def draw_all(directory, run: Run, only=None) -> list:
    trials = trials_of(run)
    return draw_figures(result(directory, run, trials), only)


def test_each_figure_is_drawn_for_screens_and_print_with_its_data(drawn):
    directory, run, paths = drawn
    assert figure_ids(run) == ["scalability-nginx", "scalability-redis", "speedup", "local-reads", "contention"]
    assert paths == [
        directory / "figures" / f"{name}.{kind}" for name in figure_ids(run) for kind in ("svg", "png", "pdf", "csv")
    ]
    for path in paths[1::4]:
        assert len(np.unique(imread(path)[..., :3].sum(axis=2))) > 20
    for path in paths[2::4]:
        assert path.read_bytes().startswith(b"%PDF")
    curves = (directory / "figures" / "scalability-nginx.svg").read_text()
    assert curves.count("<use ") > 2 * 3 + 7 * 3  # markers: ours and the published


@pytest.mark.slow
def test_the_same_run_draws_the_same_bytes(drawn, tmp_path):
    _, run, paths = drawn
    again = draw_all(tmp_path, run)
    assert [path.name for path in again] == [path.name for path in paths]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_one_figure_is_drawn_alone(drawn, tmp_path):
    assert {path.stem for path in draw_all(tmp_path, drawn[1], only="speedup")} == {"speedup"}


def data(directory, name: str) -> pd.DataFrame:
    return pd.read_csv(directory / "figures" / f"{name}.csv")


def test_the_data_beside_a_figure_are_what_it_shows(drawn):
    directory = drawn[0]
    speedup = data(directory, "speedup").query("label == 'nginx on 2 cores  fastsocket over base'")
    assert speedup.ratio.item() == pytest.approx(1.2, abs=0.03) and speedup.published.item() == 5.8
    curves = data(directory, "scalability-nginx")
    assert set(curves.source) == {"measured here", "digitised", "readme"}
    assert curves.query("system == 'Fastsocket' and cores == 24").estimate.item() == 475_000


def test_published_gains_in_percent_become_ratios():
    assert published("Redis throughput gain with Flow-Director") == 1.45


def texts(directory, name: str) -> str:
    """The comments in which matplotlib's SVG repeats each line of text."""
    return " ".join(re.findall(r"<!-- (.*?) -->", (directory / "figures" / f"{name}.svg").read_text()))


def test_figures_say_what_they_show_and_what_they_lack(drawn):
    directory = drawn[0]
    curves = texts(directory, "scalability-nginx")
    for said in (
        "nginx, this machine",
        "nginx, as published",
        "digitised ±3 kcps",
        "Linux 2.6.32 (base)",
        "load generator shares CPUs",
    ):
        assert said in curves
    assert "No curve of Redis was published." in texts(directory, "scalability-redis")
    assert texts(directory, "local-reads").count(f"not available here: {NO_PROBE}") == 2  # nginx, redis
    assert "published: 5.8" in texts(directory, "speedup")
    assert "not available here: no trial measured it" in texts(directory, "contention")


def test_the_time_of_each_cpu_is_drawn_beside_the_published_one(tmp_path):
    draw_all(tmp_path, a_run(workloads=["haproxy"]), only="cpu-by-core")
    shown = data(tmp_path, "cpu-by-core")
    assert set(shown.system) == {"base", "fastsocket"} and set(shown.source) == {"measured here", "slides"}
    assert len(shown.query("source == 'measured here'")) == 2 * 2


def test_a_day_is_drawn_hour_by_hour(tmp_path):
    run = a_run(workloads=["haproxy"], cores=[2])
    run = run.model_copy(
        update={
            "options": run.options.model_copy(
                update={"figures": figure_specs("production", ["haproxy"]), "rates": {"haproxy": 1000}, "day": True}
            )
        }
    )
    trials = [trial.model_copy(update={"rate": 1000.0 + trial.block}) for trial in trials_of(run)]
    draw_figures(result(tmp_path, run, trials))
    shown = data(tmp_path, "production").query("variant == 'base'")
    assert list(shown.hour) == [2, 6, 10, 14, 18, 22] and list(shown.rate) == [1000 + block for block in range(BLOCKS)]
    assert shown[["mean", "worst"]].to_numpy() == pytest.approx(95)


def test_what_a_request_takes_is_drawn_by_variant_and_direction(tmp_path):
    run = a_run(workloads=["nginx"], cores=[1, 2])
    figures = figure_specs("packets", ["nginx"])
    run = run.model_copy(update={"options": run.options.model_copy(update={"figures": figures})})
    taken = {"packets_in_per_request": 5.0, "packets_out_per_request": 4.0, "switches_per_request": 0.25}
    trials = [trial.model_copy(update={"metrics": {**trial.metrics, **taken}}) for trial in trials_of(run)]
    draw_figures(result(tmp_path, run, trials))
    said = texts(tmp_path, "packets")
    assert "9.00" in said and "0.25" in said and "not available here: no trial measured it" in said
    shown = data(tmp_path, "packets")
    assert set(shown.cores) == {2} and set(shown.variant) == {"base", "latest", "fastsocket"}
    assert set(shown.query("metric == 'packets_in_per_request'").estimate) == {5}


def test_peers_stand_beside_each_other_and_are_compared_with_their_own_base(tmp_path):
    run = a_run(workloads=["nginx", "envoy"], cores=[2])
    asked = {"figures": figure_specs("peers", ["nginx", "envoy"]), "latency_share": 0.6}
    run = run.model_copy(update={"options": run.options.model_copy(update=asked)})
    slow = trials_of(run, lambda index, arm, cores: 100.0 if arm == "latest" else 200.0)
    trials = [mine if mine.workload == "envoy" else other for mine, other in zip(slow, trials_of(run))]
    draw_figures(result(tmp_path, run, trials))
    said = texts(tmp_path, "peers")
    assert "Envoy:  one listener" in said and "at 60% of what base takes" in said and "0.500" in said
    shown = data(tmp_path, "peers").query("variant == 'latest' and metric == 'cps'").set_index("workload").value
    assert shown["envoy"] == pytest.approx(0.5) and shown["nginx"] == pytest.approx(1, abs=0.02)


def test_the_components_are_those_of_the_page_with_what_was_measured(tmp_path):
    for experiment, page in (("components", components.COMPONENTS), ("future-work", components.FUTURE)):
        effects = components.effects(page).values()
        assert {variant for effect in effects for variant in effect.of + effect.over} == {*read(experiment).variants}
    run = a_run(workloads=["haproxy"], cores=[2])
    options = {"variants": ["base", "listen-table"], "figures": figure_specs("components", ["haproxy"])}
    run = run.model_copy(update={"options": run.options.model_copy(update=options)})
    trials = trials_of(run, lambda index, arm, cores: 125.0 if arm == "listen-table" else 100.0)
    draw_figures(result(tmp_path, run, trials))
    assert "1.250" in texts(tmp_path, "components")
    shown = data(tmp_path, "components").set_index("Component")
    assert len(shown) == 10 and shown["In the kernel today"]["Direct-TCP"].startswith("early demux")


def test_a_figure_says_nothing_of_sharing_where_nothing_is_shared(tmp_path):
    draw_all(tmp_path, a_run(shared=False), only="scalability-nginx")
    assert "shares" not in texts(tmp_path, "scalability-nginx")


def test_a_single_block_draws_no_ratio(tmp_path):
    draw_all(tmp_path, a_run(blocks=1))
    assert "No ratio has an interval" in texts(tmp_path, "speedup")


@pytest.mark.slow
def test_a_run_that_has_hardly_begun_is_drawn_as_far_as_it_is(tmp_path):
    run = a_run(workloads=["nginx", "haproxy", "redis"])
    trials = [trial for trial in trials_of(run) if trial.workload == "nginx"][:1]
    assert len(draw_figures(result(tmp_path, run, trials))) == 4 * len(figure_ids(run))


def test_pressure_is_a_curve_by_open_connections_and_says_what_is_missing(tmp_path):
    run = a_run(workloads=["haproxy-0", "haproxy-50k"], cores=[2])
    asked = {"figures": figure_specs("pressure", ["haproxy-0"])}
    run = run.model_copy(update={"options": run.options.model_copy(update=asked)})
    draw_figures(result(tmp_path, run, trials_of(run)))
    said = texts(tmp_path, "pressure")
    assert "HAProxy, 50,000" in said and "not available here" in said
    assert {*data(tmp_path, "pressure").workload} == {"haproxy-0", "haproxy-50k"}


def test_an_unknown_figure_is_refused_with_those_there_are():
    require_figure("speedup", [a_run()])
    with pytest.raises(FigureError, match="no figure pie; there are: scalability-nginx, speedup, local-reads"):
        require_figure("pie", [a_run()])


@pytest.mark.parametrize("name", names())
def test_every_experiment_is_whole(name):
    """Its figures can be drawn, and its effects are of variants that it runs."""
    experiment = read(name)
    if isinstance(experiment, Collection):
        assert all(isinstance(read(part), Experiment) for part in experiment.parts)
        return
    assert all(spec.kind in KINDS for spec in figure_specs(name, experiment.workloads))
    for label, effect in experiment.effects.items():
        assert {*effect.of, *effect.over} <= set(experiment.variants), label
        assert effect.claim is None or published(effect.claim) > 1


# Report


class Fetched(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self, page: str):
        super().__init__()
        self.urls, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


@pytest.mark.slow
def test_the_report_is_one_file_that_fetches_nothing(tmp_path):
    run = a_run()
    path = write_all(stored(tmp_path, run, trials_of(run)))
    assert path == tmp_path / "report.html"
    page = path.read_text()
    fetched = Fetched(page)
    fetched_urls = [url for url in fetched.urls if not url.startswith("#")]
    assert len(fetched_urls) == 1 + sum(spec.kind != "related" for spec in run.options.figures)
    assert all(url.startswith("data:image/svg+xml;base64,") for url in fetched_urls)
    assert not {"script", "link", "iframe", "object"} & set(fetched.tags)
    assert not re.search(r"https?://|@import|url\(", page)


def test_a_published_speed_up_stands_beside_the_largest_core_count_of_short_connections_alone(tmp_path):
    run = a_run(workloads=["nginx", "redis"])
    trials = [
        trial.model_copy(update={"metrics": {"rps": trial.metrics["cps"]}}) if trial.workload == "redis" else trial
        for trial in trials_of(run)
    ]
    draw_figures(result(tmp_path, run, trials), "speedup")
    shown = data(tmp_path, "speedup").query("published.notna()")
    assert set(shown.group) == {"nginx on 2 cores"} and set(shown.published) == {5.8, 2.3}


def test_what_is_not_as_it_should_be_is_said_before_the_numbers():
    run = a_run(blocks=8, cores=[2], fingerprint={"load before": "19.73 17.06 14.34", "cpus": "2 usable of 2"})
    trials = trials_of(run, steady)
    trials[5] = trials[5].model_copy(update={"metrics": {**trials[5].metrics, "cps": 300.0}})
    trials[6] = trials[6].model_copy(update={"repeated": "the lab was suspended"})
    said = " ".join(warnings(run, trials))
    assert (
        f"Slow, with less than 70% of what is usual for that variant: 1 trial of {trials[5].arm}, nginx on 2 cores."
        in said
    )
    assert "Run once more, with nothing kept of the first attempt: 1 × the lab was suspended." in said
    assert "its load average was 19.73 on 2 CPUs" in said
    constant = warnings(run, trials_of(run, lambda index, arm, cores: 1000.0))
    assert "nginx on 2 cores: all trials gave the same CPS, so it was not measured." in constant


@pytest.mark.slow
def test_several_runs_make_one_report(tmp_path):
    for name, day in (("scalability", 2), ("cost", 1)):
        run = a_run(cores=[2], started=f"2024-05-0{day}T12:00:00+02:00")
        run = run.model_copy(update={"options": run.options.model_copy(update={"experiment": name})})
        (tmp_path / name).mkdir()
        stored(tmp_path / name, with_figures(run, 1), trials_of(run))
    assert [part.name for part in runs_in(tmp_path)] == ["cost", "scalability"]
    page = write_all(tmp_path).read_text()
    assert page.index('<section id="cost">') < page.index('<section id="scalability">')
    assert (tmp_path / "cost" / "summary.csv").exists() and (tmp_path / "scalability" / "figures").is_dir()


def with_figures(run: Run, number: int) -> Run:
    """With the first few of its figures: drawing takes the longest by far."""
    return run.model_copy(update={"options": run.options.model_copy(update={"figures": run.options.figures[:number]})})


def page_of(directory, run: Run, trials: list[Trial]) -> str:
    """The report of a run that draws nothing."""
    return write_report(directory, [result(directory, with_figures(run, 0), trials)]).read_text()


def short_of(directory, run: Run, trials: list[Trial]):
    return in_short([result(directory, run, trials)])


def test_the_first_screen_says_what_came_out_how_sure_and_what_speaks_against_it(tmp_path):
    run = a_run(blocks=8, cores=[1, 2])
    trials = trials_of(run)
    row = one(estimate(trials))
    short = short_of(tmp_path, run, trials)
    assert "a listener of its own" in short.asked[0] and "nginx" in short.asked[1] and "8 blocks" in short.asked[1]
    assert short.found[0].startswith(f"nginx on 2 cores: {100 * (row.ratio_to_base - 1):.1f} % more requests (95 % ")
    assert "in 2 settings" in short.sure[0] and "exploratory" in short.sure[1]
    assert any("shares CPUs" in sentence for sentence in short.against)


def test_losses_are_said_as_readily_as_gains(tmp_path):
    run = a_run(blocks=8, cores=[2])
    slow = {"base": 10.0, "control": 10.0, "latest": 10.0, "fastsocket": 13.0}
    trials = [
        trial.model_copy(
            update={"metrics": {**trial.metrics, "latency_p99_ms": slow[trial.arm] + trial.index % 7 / 100}}
        )
        for trial in trials_of(run, lambda index, arm, cores: steady(index, arm, cores) / TRUTH[arm] ** 2)
    ]
    loss = short_of(tmp_path, run, trials).against[0]
    assert re.match(r"nginx on 2 cores: 16\.\d % fewer requests \(", loss)
    assert re.search(r"; (29|30)\.\d % longer 99th percentile of the latency \(", loss)


def test_runs_under_other_conditions_are_told_apart(tmp_path):
    """The tail at a high load must not hide behind that at a low one."""
    made = []
    for tail, changes in ((10.5, {"share": 0.3}), (70.0, {"share": 0.9}), (20.0, {"neighbour": 0})):
        run = a_run(blocks=8, cores=[2])
        run = run.model_copy(update={"options": run.options.model_copy(update=changes)})
        slow = {"base": 10.0, "control": 10.0, "latest": 10.0, "fastsocket": tail}
        trials = [
            trial.model_copy(
                update={"metrics": {**trial.metrics, "latency_p99_ms": slow[trial.arm] + trial.index % 7 / 100}}
            )
            for trial in trials_of(run, steady)
        ]
        made.append(result(tmp_path, run, trials))
    said = in_short(made).against
    for under, change in (
        ("at 30 % of what base takes", r"[45]\.\d"),
        ("at 90 % of what base takes", r"(59\d|600)\.\d"),
        ("beside a busy process", r"(99|100)\.\d"),
    ):
        assert any(re.search(rf"nginx on 2 cores, {under}: (.*; )?{change} % longer 99th", line) for line in said)


def test_no_difference_is_said_with_what_would_have_been_seen(tmp_path):
    run = a_run(blocks=8, cores=[2])
    noise = np.random.default_rng(5)
    trials = trials_of(run, lambda index, arm, cores: 1000 * math.exp(noise.normal(0, 0.02)))
    assert re.search(
        r"no clear difference in requests \(.*; \d\.\d % would have been seen\)",
        short_of(tmp_path, run, trials).found[0],
    )
    assert re.search(
        r"no difference seen .*; \d\.\d % would have been seen\)",
        outcomes(run, result(tmp_path, run, trials).verdicts)[0],
    )


def test_a_run_is_enlarged_to_so_many_trials_whose_blocks_are_whole(tmp_path):
    enlarge(SWEEP, tmp_path, 600, workloads=["nginx"], variants=["base", "fastsocket"], cores=[2])
    [found] = results_in(tmp_path)
    assert len(found.trials) == 600 and found.run.options.blocks == 100
    [row] = each(found.verdicts[found.verdicts.metric == "cps"])
    assert 1 < row.low < row.ratio < row.high < 1.2


def test_what_this_machine_cannot_run_has_its_place_in_the_report(tmp_path):
    run = a_run()
    run = run.model_copy(update={"options": run.options.model_copy(update={"why_not": "it has <no> siblings"})})
    write_run(tmp_path, run)
    page = write_all(tmp_path).read_text()
    assert "Not available here: it has &lt;no&gt; siblings" in page
    assert all((tmp_path / "figures" / f"{name}.svg").exists() for name in figure_ids(run))
    assert in_short([result(tmp_path, run, [])]).found == [
        f"{run.options.experiment} is not available here: it has <no> siblings."
    ]


@pytest.mark.slow
def test_the_report_says_what_a_reader_has_to_know(tmp_path):
    run = a_run(blocks=8, complete=False, planned_trials=200, unavailable={"contentions_per_connection": NO_PROBE})
    trials = trials_of(run)
    trials[3] = trials[3].model_copy(update={"spoilt": ["<stolen>"]})
    page = write_report(tmp_path, [result(tmp_path, run, trials)]).read_text()
    for said in (
        "nginx on 2 cores: fastsocket is faster than base, ratio 1.",
        "The A/A control, base measured",
        "Incomplete: 128 of 200 planned trials",
        "shares CPUs 0, 1 with the server at 2 cores",
        f"Not available here: contentions per connection: {NO_PROBE}",
        "1 of 128 trials are marked",
        "1 × &lt;stolen&gt;",
        "The seed is 7",
        "64% was measuring",
        "6.18 &lt;test&gt; &amp; more",
        "1.22.1",
    ):
        assert said in page, said
    headings = re.findall(r"<h([1-6]).*?>(.*?)</h\1>", page)
    assert headings == [
        ("1", "What Fastsocket changes on this machine"),
        ("2", "What came out"),
        ("2", "What speaks against it"),
        ("2", "How sure that is"),
        ("2", "scalability"),
        ("3", "Before trusting the numbers"),
        ("3", "Summary"),
        ("3", "Verdicts"),
        ("3", "Figures"),
        ("3", "How it was measured"),
        ("2", "Machine"),
        ("2", "Versions"),
    ]


@pytest.mark.slow
def test_a_variant_that_a_server_lacks_is_left_out_with_the_reason(tmp_path):
    run = a_run(workloads=("nginx", "redis"))
    options = run.options.model_copy(update={"lacking": {"redis": {"latest": "a single thread accepts"}}})
    run = run.model_copy(update={"options": options, "planned_trials": len(schedule(options))})
    trials = trials_of(run)
    assert not [trial for trial in trials if (trial.workload, trial.variant) == ("redis", "latest")]
    assert [trial for trial in trials if (trial.workload, trial.variant) == ("nginx", "latest")]
    page = page_of(tmp_path, run, trials)
    assert "Redis is not run as latest: a single thread accepts." in page
    assert "latest has no measured trial" not in page


TIMED_OUT = "redis-benchmark did not end within 20 s"


def fails(trial: Trial) -> Trial:
    slot = ("index", "block", "workload", "variant", "control", "cores", "started")
    return failed_trial(TIMED_OUT, **{name: getattr(trial, name) for name in slot}, rate=None)


@pytest.mark.slow
def test_trials_that_failed_are_named_and_are_in_no_number(tmp_path):
    run = a_run(cores=[2])
    whole = trials_of(run, steady)
    trials = [fails(trial) if trial.block == 0 and trial.variant == "fastsocket" else trial for trial in whole]
    page = write_all(stored(tmp_path, run, trials)).read_text()
    assert "Failed: 2 of 48 trials." in page
    assert f"nginx on 2 cores as fastsocket: 2 trials failed, and no number has any of it: {TIMED_OUT}." in page
    row = one(pd.read_csv(tmp_path / "summary.csv"))
    assert (row.n, row.estimate) == (BLOCKS - 1, pytest.approx(1200))
    flat = pd.read_parquet(tmp_path / "trials.parquet")
    assert (flat.failed == TIMED_OUT).sum() == flat.cps.isna().sum() == 2


@pytest.mark.slow
def test_a_workload_of_which_all_trials_failed_costs_only_itself(tmp_path):
    """The figures of every experiment are drawn, and say that there is nothing."""
    experiments = [name for name in names() if isinstance(read(name), Experiment)]
    specs = {spec.id: spec for name in experiments for spec in figure_specs(name, ["nginx", "redis"])}
    assert len(specs) > 30
    run = a_run(workloads=["nginx", "redis"], cores=[2], left_out={"redis": TIMED_OUT})
    run = run.model_copy(update={"options": run.options.model_copy(update={"figures": [*specs.values()]})})
    trials = [fails(trial) if trial.workload == "redis" else trial for trial in trials_of(run, steady, rate=1000.0)]
    page = write_all(stored(tmp_path, run, trials)).read_text()
    assert f"The rest of Redis was left out, because one trial after the other failed: {TIMED_OUT}." in page
    assert "nginx on 2 cores: fastsocket is faster than base" in page
    assert all((tmp_path / "figures" / f"{name}.svg").exists() for name in figure_ids(run))


def test_a_run_of_failed_trials_alone_is_none(tmp_path):
    run = a_run(cores=[2])
    stored(tmp_path, run, [fails(trial) for trial in trials_of(run)])
    with pytest.raises(RecordError, match="holds no finished trial"):
        write_all(tmp_path)


def test_the_terminal_shows_failed_trials_beside_the_others(tmp_path, capsys):
    run = a_run(cores=[2], planned_trials=48)
    with LiveTable(run, tmp_path) as live:
        for number, trial in enumerate(trials_of(run)):
            live.add(fails(trial) if number % 2 else trial)
        Console(width=200).print(live._render())
    assert f"nginx fastsocket on 2 cores failed: {TIMED_OUT}" in (shown := capsys.readouterr().out)
    assert re.search(r"0, \d+ failed", shown)


def test_what_is_measured_before_the_first_trial_is_not_in_the_time_left(tmp_path, capsys, monkeypatch):
    run = a_run(cores=[2], planned_trials=48)
    now = 0.0
    monkeypatch.setattr("analysis.live.time.monotonic", lambda: now)
    with LiveTable(run, tmp_path) as live:
        now = 1000.0
        for trial in trials_of(run):
            live.add(trial)
            now += 2
    left = [int(minutes) for minutes in re.findall(r"(\d+):\d\d left", capsys.readouterr().out)]
    assert left == sorted(left, reverse=True) and 0 < left[0] < 2


@pytest.mark.slow
def test_a_sound_run_has_no_warnings_and_no_share_of_an_unknown_time(tmp_path):
    run = a_run(shared=False, wall_seconds=0.0)
    trials = trials_of(run, steady)
    assert warnings(run, trials) == []
    page = page_of(tmp_path, run, trials)
    assert "Before trusting" not in page and "was measuring" not in page
    assert "The A/A control, base measured as if it were another variant:" in page and "control is off" not in page


@pytest.mark.parametrize(
    "effect, verdict",
    [
        (1.2, "fastsocket is faster than base, ratio 1."),
        (0.8, "fastsocket is slower than base, ratio 0."),
        (1.0, "no difference seen between fastsocket and base, "),
    ],
)
def test_verdicts_follow_the_interval(tmp_path, effect, verdict):
    noise = np.random.default_rng(5)
    run = a_run(blocks=8, cores=[2])
    trials = trials_of(
        run, lambda index, arm, cores: 1000 * (effect if arm == "fastsocket" else 1) * noise.uniform(0.999, 1.001)
    )
    ours, theirs = outcomes(run, result(tmp_path, run, trials).verdicts)
    assert verdict in ours and "latest" in theirs


@pytest.mark.slow
def test_nothing_is_claimed_without_an_interval(tmp_path):
    run = a_run(blocks=1, cores=[2])
    trials = trials_of(run)
    sentences = outcomes(run, result(tmp_path, run, trials).verdicts)
    assert len(sentences) == 2 and all("no claim is made" in said and "ratio" not in said for said in sentences)
    nothing_yet = outcomes(run, result(tmp_path, run, trials[:0]).verdicts)
    assert len(nothing_yet) == 2 and all("has no measured trial" in said for said in nothing_yet)
    page = page_of(tmp_path, run, trials)
    assert "No A/A control with an interval" in page and "base against itself" not in page


@pytest.mark.slow
def test_a_control_that_is_off_leads_the_report(tmp_path):
    run = a_run()
    trials = trials_of(run, biased)
    page = page_of(tmp_path, run, trials)
    assert page.index("the A/A control is off") < page.index("How sure that is")
    assert "Effects of that size there may be no effects" in page


def test_metrics_that_only_some_trials_lack_are_counted():
    run = a_run()
    trials = trials_of(run)
    trials[0] = without(trials[0], "latency_p99_ms", unavailable={"latency_p99_ms": "no request finished"})
    assert "Not available here: 99th percentile of the latency in 1 of 96 trials: no request finished." in warnings(
        run, trials
    )


def test_a_directory_without_trials_is_refused(tmp_path):
    with pytest.raises(RecordError, match="holds no run"):
        write_all(tmp_path)
    write_run(tmp_path, a_run())
    with pytest.raises(RecordError, match="holds no finished trial"):
        write_all(tmp_path)


def test_what_is_printed_of_a_part_counts_its_own_seconds(tmp_path, capsys):
    run = a_run(wall_seconds=400.0)
    stored(tmp_path, run, trials := trials_of(run))
    print_outcome(results_in(tmp_path), tmp_path / "report.html")
    share = sum(trial.seconds for trial in trials) / 400
    assert f"{len(trials)} trials, {share:.0%} of 400 s measuring" in capsys.readouterr().out


EMULATED = {"fingerprint": {"kernel": "6.1", "guest": "emulated by QEMU, so no timing in it means anything"}}


def test_an_emulated_guest_estimates_draws_and_tables_no_times_and_says_so_first(tmp_path, capsys):
    run = a_run(**EMULATED)
    stored(tmp_path, run, trials_of(run))
    page = write_all(tmp_path).read_text()
    print_outcome(results_in(tmp_path), tmp_path / "report.html")
    printed = capsys.readouterr().out
    assert page.index("emulated guest: no timing") < page.index('id="in-short"')
    assert "emulated guest: no timing" in " ".join(printed.split())
    for word in (
        "is faster than",
        "ratio to base",
        "CPS",
        "p99, ms",
        "CPU time per request",
        "more requests",
        "A/A control",
    ):
        assert word not in page, word
        assert word not in printed, word
    assert "99.9" in page and "99.9" in printed
    assert set(pd.read_csv(tmp_path / "summary.csv").metric) == {"errors", "passive_local_percent"}
    assert pd.read_csv(tmp_path / "tables" / "comparisons.csv").empty
    for spec in run.options.figures:
        shown = pd.read_csv(tmp_path / "figures" / f"{spec.id}.csv")
        assert ("unavailable" in shown.columns) == (spec.kind != "locality"), spec.id


@pytest.mark.slow
def test_a_guest_on_the_cpu_itself_is_measured_like_any_machine(tmp_path):
    run = with_figures(a_run(fingerprint={"kernel": "6.1", "guest": "KVM, started by lab.py guest"}), 0)
    stored(tmp_path, run, trials_of(run))
    assert "emulated" not in write_all(tmp_path).read_text()
    assert "cps" in set(pd.read_csv(tmp_path / "summary.csv").metric)
