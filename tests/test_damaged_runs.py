"""A run directory that somebody else wrote or damaged is read, or refused in one line; it is never a traceback."""

import json
import os
import random
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.report import outcomes, warnings
from analysis.results import results_in
from analysis.summary import in_short
from records.run import RUN, RecordError, write_run
from records.trials import TRIALS, append_trial
from tests.harness.runs import a_run, trials_of

STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([10**30, -1e308, 1e-308, "", "..", "/etc/passwd", "<b>&", "\x1b[2J", "base", "nan", [], {}, [[]]]),
    st.text(max_size=5),
)


def written(folder: Path) -> None:
    (folder / TRIALS).unlink(missing_ok=True)
    run = a_run(blocks=3, cores=(1,))
    write_run(folder, run)
    append_trial(folder, *trials_of(run))


def places(node, above=()):
    """The paths of all values within a JSON document."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else []
    for key, child in children:
        yield (*above, key)
        yield from places(child, (*above, key))


def put(document, path, value):
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


def read_as_a_report_does(folder: Path) -> None:
    results = results_in(folder)
    in_short(results)
    for result in results:
        outcomes(result.run, result.verdicts)
        warnings(result.run, result.trials)


def is_read_or_refused(folder: Path) -> None:
    try:
        read_as_a_report_does(folder)
    except RecordError as error:
        assert len(str(error).splitlines()) == 1


QUIETLY = settings(
    max_examples=int(os.environ.get("DAMAGED_RUNS", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@QUIETLY
@given(value=STRANGE, seed=st.integers(0, 2**32), of_run=st.booleans())
def test_a_value_of_another_kind(tmp_path, value, seed, of_run):
    written(tmp_path)
    change_a_value(tmp_path, value, random.Random(seed), of_run)
    is_read_or_refused(tmp_path)


def change_a_value(folder: Path, value, choice: random.Random, of_run: bool) -> None:
    """In run.json, or in one of the trials."""
    path = folder / (RUN if of_run else TRIALS)
    lines = [path.read_text()] if of_run else path.read_text().splitlines()
    number = choice.randrange(len(lines))
    document = json.loads(lines[number])
    put(document, choice.choice([*places(document)]), value)
    lines[number] = json.dumps(document)
    path.write_text("\n".join(lines) + "\n")


@QUIETLY
@given(damage=st.binary(min_size=1, max_size=4), at=st.integers(0, 10**6), of_run=st.booleans())
def test_bytes_of_another_kind(tmp_path, damage, at, of_run):
    written(tmp_path)
    path = tmp_path / (RUN if of_run else TRIALS)
    data = path.read_bytes()
    start = at % len(data)
    path.write_bytes(data[:start] + damage + data[start + len(damage) :])
    is_read_or_refused(tmp_path)
