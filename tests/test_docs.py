"""The docs are true: examples run, what is named exists, links lead somewhere, numbers are the reference run's.

A ```console block is a session, and is run. A line that starts with "$ " is a command; the lines below it are what it
prints. There … stands for any text, a line of … alone for any lines, and blanks for any number of blanks. A session has
a directory of its own that shows this checkout, and network, process and mount namespaces of its own: what it starts
ends with it, and what it writes to /run is gone. "fastsocket status" is asked until it shows what is shown, because
workers adopt a clone when they first wait.

A ```sh block is not run; like the code spans of the text it is read for verbs and options.
"""

import csv
import math
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from analysis.figures import interrupts
from analysis.figures.view import View
from analysis.results import SUMMARY, Result, kept_result, results_in
from analysis.statistics import resolution
from docs import draw
from fastsocket.prometheus import exposition
from records.run import FigureSpec, runs_in
from tests.harness.needs import IPV6
from tests.harness.pages import FENCE, anchors
from tests.harness.patience import patient

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
LIBRARY, STEERING, MEASURE, LAB, RESULTS, ARCHITECTURE = (
    (DOCS / f"{name}.md").read_text() for name in ("library", "steering", "measure", "lab", "results", "architecture")
)
REFERENCE = ROOT / "results" / "reference"
README_LINES = 150
ANSWER_SECONDS = patient(15)


def name_of(page) -> str:
    return str(page.relative_to(ROOT)) if isinstance(page, Path) else ""


def blocks(language: str) -> list:
    return [
        pytest.param(text, id=f"{name_of(page)}-{number}")
        for page in PAGES
        for number, (kind, text) in enumerate(FENCE.findall(page.read_text()))
        if kind == language
    ]


# ---- sessions --------------------------------------------------------------------------------------------------------

END = "--- end of the answer ---"
PREPARE = "ip link set lo up; mount -t tmpfs none /run; mount -t tmpfs none /var/log/nginx"


@contextmanager
def session(directory: Path) -> Iterator[subprocess.Popen]:
    """A shell in namespaces of its own, in a directory that shows the checkout; results/ there is its own."""
    for entry in ROOT.iterdir():
        if entry.name != "results":
            (directory / entry.name).symlink_to(entry)
    (directory / "results").mkdir()
    (directory / "results" / "reference").symlink_to(ROOT / "results" / "reference")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "--norc"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env={**os.environ, "PATH": path},
    ) as shell:
        try:
            assert answer(shell, PREPARE) == ""
            yield shell
        finally:
            shell.kill()


def answer(shell: subprocess.Popen, command: str) -> str:
    """What the command prints."""
    shell.stdin.write(f"{command}\necho '{END}'\n")
    shell.stdin.flush()
    lines = []
    for line in shell.stdout:
        if line.rstrip("\n").endswith(END):
            return "".join([*lines, line.rstrip("\n").removesuffix(END)])
        lines.append(line)
    raise AssertionError(f"the shell ended: {''.join(lines)}")


def steps(block: str) -> list[tuple[str, str]]:
    """The commands of a session, each with what it is to print."""
    found = [part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, shown) for command, _, shown in found]


def shape(shown: str) -> str:
    """A pattern for what is shown."""
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    return "".join(r"(.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in lines)


def blanks_joined(text: str) -> str:
    return "".join(" ".join(line.split()) + "\n" for line in text.splitlines())


def test_shapes_tell_answers_apart():
    shown = "CPU  adopters\n0    …\n…\nlast\n"
    assert re.fullmatch(shape(shown), blanks_joined("CPU adopters   \n0   71, 72\n1 73\nlast"))
    assert re.fullmatch(shape(shown), blanks_joined("CPU adopters\n0 71\nlast"))
    assert not re.fullmatch(shape(shown), blanks_joined("CPU adopters\n1 71\nlast"))
    assert not re.fullmatch(shape(shown), blanks_joined("CPU adopters\n0 71\nlast\nmore"))


@pytest.mark.privileged
@pytest.mark.needs("nginx")
@pytest.mark.needs(IPV6)  # Debian's nginx listens there
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="locality needs two CPUs")
@pytest.mark.parametrize("block", blocks("console"))
def test_a_session_prints_what_is_shown(block, tmp_path):
    with session(tmp_path) as shell:
        for command, shown in steps(block):
            deadline = time.monotonic() + ANSWER_SECONDS
            printed = blanks_joined(answer(shell, command))
            while not re.fullmatch(shape(shown), printed) and command.startswith("fastsocket status"):
                if time.monotonic() > deadline:
                    break
                printed = blanks_joined(answer(shell, command))
            assert re.fullmatch(shape(shown), printed), f"{command} printed\n{printed}and is shown with\n{shown}"


# ---- what the docs name ----------------------------------------------------------------------------------------------

LAB_COMMAND = re.compile(r"(?:lab\.py(?: --yes)?|/results\" fastsocket-lab|--privileged fastsocket-lab) ([a-z]+)(.*)")
FASTSOCKET_COMMAND = re.compile(r"(?:^|\$ |\$\(|; |&& |sudo )fastsocket ([a-z]+)(.*)")


def code(page: Path) -> list[str]:
    """The lines of code in a page: of its blocks, without comments, and its code spans."""
    text = page.read_text()
    of_blocks = [
        line.partition("  #")[0]
        for kind, block in FENCE.findall(text)
        if kind in ("sh", "console")
        for line in block.splitlines()
    ]
    return of_blocks + [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def uses(pattern: re.Pattern) -> list[tuple[str, str]]:
    """Verbs, each with the arguments that are the verb's own and not those of a command behind --."""
    found = [match.groups() for page in PAGES for line in code(page) for match in pattern.finditer(line)]
    return [(verb, re.split(r" -- |[;|)]", rest)[0]) for verb, rest in found]


@cache
def help_of(*command: str) -> str:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout


def options_in(text: str) -> set[str]:
    """--[no-]pin, as some write it, is --pin and --no-pin."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text.replace("[no-]", "")))


@pytest.mark.parametrize(
    "pattern, command",
    [(LAB_COMMAND, ["lab.py"]), (FASTSOCKET_COMMAND, ["-m", "fastsocket"])],
    ids=["lab", "fastsocket"],
)
def test_verbs_and_options_in_the_docs_exist(pattern, command):
    named = uses(pattern)
    assert len(named) > 10
    for verb, rest in named:
        known = help_of(*command, verb)
        if verb != "test":  # whose options are pytest's
            assert options_in(rest) <= options_in(known), f"{verb} {rest}"


@pytest.mark.parametrize("verb", ["run", "check", "status", "measure", "nic", "path"])
def test_every_option_of_the_command_is_in_the_docs(verb):
    assert options_in(help_of("-m", "fastsocket", verb)) - {"--help"} <= options_in(LIBRARY + STEERING + MEASURE)


def names_in(pattern: str, *files: Path) -> set[str]:
    return {name for file in files for name in re.findall(pattern, file.read_text())}


def test_environment_variables_in_the_docs_are_those_of_the_code():
    settings = names_in(r'"(FSOCKET[A-Z_]*)"', draw.LIBRARY / "settings.c")
    of_tests = names_in(r'"(FSOCKET_[A-Z_]+)"', *(ROOT / "tests").glob("test_*.py"))
    named = names_in(r"\bFSOCKET_[A-Z_]+\b", *PAGES)
    assert named <= settings | of_tests
    assert settings <= names_in(r"\bFSOCKET[A-Z_]*\b", DOCS / "library.md")


def test_metrics_for_prometheus_in_the_docs_are_those_of_the_code():
    known = set(re.findall(r"^# TYPE (\w+)", exposition([]), re.MULTILINE))
    assert set(re.findall(r"\bfastsocket_\w+", LIBRARY)) == known


def test_reasons_in_the_docs_are_those_of_the_library():
    section = LIBRARY.partition("\n## Reasons\n")[2].partition("\n## ")[0]
    reasons = [
        reason
        for line in section.splitlines()
        if line.startswith("| `")
        for reason in re.findall(r"`([^`]+)`", line.split(" | ")[0])
    ]
    source = "".join(file.read_text() for file in sorted(draw.LIBRARY.iterdir()))
    assert len(reasons) > 20
    assert [reason for reason in reasons if f'"{reason}"' not in source] == []


def test_experiments_in_the_docs_are_those_there_are():
    table = LAB.partition("\n## Experiments\n")[2].partition("\n## ")[0]
    named = {name for line in table.splitlines() for name in re.findall(r"`([a-z0-9-]+)`", line.split(" | ")[0])}
    assert named == {file.stem for file in (ROOT / "experiments").glob("*.toml")}


def test_a_container_is_told_to_have_the_capabilities_that_the_lab_asks_for():
    asked = names_in(r'_capability\("(\w+)"', *ROOT.glob("*/container.py"))
    assert asked and names_in(r"--cap-add (\w+)", DOCS / "container.md") == asked


def test_every_package_is_in_the_architecture():
    assert [name for name in draw.imports() if f"| `{name.removesuffix('.py')}" not in ARCHITECTURE] == []


# ---- links, pictures, numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if target.startswith(("https://", "http://")):
            continue
        place, _, anchor = target.partition("#")
        file = page.parent / place if place else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= README_LINES


def test_public_ci_runs_what_the_readme_says():
    assert "- run: .ci/run\n" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    for place in (README, ROOT / ".ci" / "run"):
        assert "python3 lab.py --yes test" in place.read_text()


def test_the_changelog_tells_of_the_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"\n## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", draw.pictures())
def test_pictures_are_what_the_code_and_the_run_give(name):
    assert (DOCS / name).read_text() == draw.pictures()[name], "run python3 docs/draw.py"


def test_the_packages_have_no_cycle():
    assert not any("⇄" in name for name in draw.condensed(draw.imports()))


SERVERS = ("nginx", "haproxy", "redis")
THROUGHPUT = {"nginx": "cps", "haproxy": "cps", "redis": "rps"}
RUNS = {  # of which the tables tell
    "reference": [draw.SUMMARY],
    "threads": [ROOT / "results" / "threads" / part / "summary.csv" for part in ("web", "redis")],
    "rps": [ROOT / "results" / "rps" / "summary.csv"],
    "peers": [ROOT / "results" / "peers" / "tail" / "summary.csv"],
}
NEWER = {"haproxy": "haproxy-2.8", "redis": "valkey"}
OWN_COST, ALL_COST = "server_cpu_us_per_request", "cpu_us_per_request"
ROWS = {  # of the tables in README.md and results.md: run, variant and metric; None: throughput
    "connections (Redis: requests) per second": ("threads", "fastsocket", None),
    "with fewer packets: connections (requests) per second": ("threads", "fewer-packets", None),
    "the server's own CPU time per request": ("threads", "fastsocket", OWN_COST),
    "with fewer packets: the server's own CPU time per request": ("threads", "fewer-packets", OWN_COST),
    "NIC that interrupts: connections (requests) per second": ("rps", "fastsocket", None),
    "NIC that interrupts, with fewer packets: connections (requests) per second": ("rps", "fewer-packets", None),
    "NIC that interrupts: latency, 99th percentile": ("rps", "fastsocket", "latency_p99_ms"),
    "newer: HAProxy 2.8, Valkey 9.1, at 60 % load: latency, 99th percentile": ("peers", "fastsocket", "latency_p99_ms"),
    "fastsocket: connections (Redis: requests) per second": ("reference", "fastsocket", None),
    "latest: connections per second": ("reference", "latest", None),
    "A/A control: connections (Redis: requests) per second": ("reference", "control", None),
    "fastsocket: CPU time per request, without the load generator's": ("reference", "fastsocket", ALL_COST),
    "fastsocket: lock contentions per connection (Redis: request)": (
        "reference",
        "fastsocket",
        "contentions_per_connection",
    ),
    "fastsocket: latency, 99th percentile": ("reference", "fastsocket", "latency_p99_ms"),
}


@cache
def summary(run: str = "reference") -> dict[tuple[str, ...], dict[str, str]]:
    rows = [row for file in RUNS[run] for row in csv.DictReader(file.open())]
    return {(row["workload"], row["variant"], row["cores"], row["metric"]): row for row in rows}


def ratio(server: str, variant: str, cores: int, metric: str | None, run: str = "reference") -> str:
    workload = NEWER.get(server, server) if run == "peers" else server
    row = summary(run).get((workload, variant, str(cores), metric or THROUGHPUT[server]))
    return (
        "{:.3f} ({:.3f}–{:.3f})".format(*(float(row[f"ratio_{of}"]) for of in ("to_base", "low", "high")))
        if row and row["ratio_low"]
        else ""
    )


def local_reads(server: str, run: str) -> str:
    base, ours = (
        float(summary(run)[server, variant, "2", "passive_local_percent"]["estimate"])
        for variant in ("base", "fastsocket")
    )
    return f"{base:.1f} % → {ours:.1f} %"


@pytest.mark.parametrize("page, run", [(README, "threads"), (DOCS / "results.md", "reference")], ids=name_of)
def test_tables_of_results_are_what_the_runs_say(page, run):
    table = page.read_text().partition("| | nginx | HAProxy | Redis |\n|---|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len(rows) >= 4
    for label, *cells in rows:
        if label.startswith("reads on the packet's own core"):
            assert cells == [local_reads(server, run) for server in SERVERS]
        else:
            of, variant, metric = ROWS[label]
            assert cells == [ratio(server, variant, 2, metric, of) for server in SERVERS], label


def test_results_in_the_text_are_the_reference_runs():
    one_core = ratio("nginx", "fastsocket", 1, None)
    tails = [
        float(summary()["haproxy", variant, "2", "latency_p99_ms"]["ratio_to_base"])
        for variant in ("fastsocket", "latest")
    ]
    readme, results = " ".join(README.read_text().split()), " ".join(RESULTS.split())
    assert one_core in readme and one_core in results
    assert f"percentile grew by {100 * tails[0] - 100:.0f} %" in readme
    for server in ("haproxy", "redis"):  # "no difference", and what would have been seen
        row = summary()[server, "fastsocket", "1", THROUGHPUT[server]]
        low, high = float(row["ratio_low"]), float(row["ratio_high"])
        assert low < 1 < high and ratio(server, "fastsocket", 1, None) in results
        assert re.search(rf"\b{100 * resolution(low, high) - 100:.0f}\b.{{0,9}}% would have been seen", readme)
    assert f"is {tails[0]:.2f} times as long" in results and f"has it, too: {tails[1]:.2f}." in results


LOSSES_AND_GAINS = {  # what results.md says of other figures of the reference run: file -> row
    "redis": "libfsocket.so alone",
    "single-core-nginx": "Fast-Epoll: libfsocket's",
    "single-core-haproxy": "Fast-Epoll: libfsocket's",
}


@pytest.mark.parametrize("name", LOSSES_AND_GAINS)
def test_figures_and_pages_do_not_contradict_each_other(name):
    with (REFERENCE / name / "figures" / f"{name}.csv").open() as file:
        (row,) = (row for row in csv.DictReader(file) if row["label"] == LOSSES_AND_GAINS[name])
    said = "{:.3f} ({:.3f}–{:.3f})".format(*(float(row[of]) for of in ("ratio", "low", "high")))
    assert said in " ".join(RESULTS.split())


@pytest.mark.parametrize("server", ["nginx", "haproxy"])
def test_what_a_second_run_says_of_one_core_is_told_too(server):
    with (REFERENCE / f"single-core-{server}" / "summary.csv").open() as file:
        (row,) = (row for row in csv.DictReader(file) if (row["variant"], row["metric"]) == ("fastsocket", "cps"))
    said = "{:.3f} ({:.3f}–{:.3f})".format(*(float(row[f"ratio_{of}"]) for of in ("to_base", "low", "high")))
    assert said in " ".join(RESULTS.split())


def test_the_readme_says_by_how_much_a_proxy_loses_without_interrupts():
    fewer = 100 - 100 * float(summary("threads")["haproxy", "fastsocket", "2", "cps"]["ratio_to_base"])
    assert f"no interrupts are saved: {fewer:.0f} % fewer connections" in " ".join(README.read_text().split())


def assert_summary_is_what_trials_say(run: Path) -> None:
    for result in [result for result in results_in(run) if result.trials]:
        stored, made = kept_result(result.directory).summary, result.summary.reset_index(drop=True)
        pd.testing.assert_frame_equal(stored, made, check_dtype=False, rtol=1e-9)


def test_the_reference_runs_tables_are_what_the_code_computes_from_its_trials():
    assert_summary_is_what_trials_say(REFERENCE)


TOLD = {  # a section of results.md, and the runs in results/ whose ratios it has
    "The same with threads": ["paper"],
    "Latency at three loads": ["experiments/latency"],
    "Balance": ["experiments/balance", "experiments/balance-cases", "experiments/balance-closed"],
    "Beside the peers": ["peers/all", "peers/tail", "peers/envoy"],
    "A proxy's own connections": ["experiments/pressure", "experiments/upstream"],
    "Where packets are taken in": ["experiments/placement"],
    "Components, tables and future work": [
        "experiments/components",
        "experiments/established-table",
        "experiments/future-work",
    ],
    "A busy neighbour, and what interrupts explain": ["experiments/neighbour", "experiments/interrupts"],
}


Ratio = tuple[float, float, float]  # with its interval


def kept(name: str) -> list[Result]:
    """The runs in a folder of results/ that have trials, with what summary.csv says of them."""
    return [kept_result(run) for run in folders(name)]


def folders(name: str) -> list[Path]:
    """Of the runs in a folder of results/ that have trials."""
    return [run for run in runs_in(ROOT / "results" / name) if (run / SUMMARY).exists()]


def summarised(result: Result) -> Iterator[Ratio]:
    """All ratios to base of a run."""
    yield from result.summary[["ratio_to_base", "ratio_low", "ratio_high"]].itertuples(index=False)


def computed(result: Result) -> Iterator[Ratio]:
    """The other ratios of a run, and what is left of its gains without interrupts saved."""
    yield from result.compared[["ratio", "low", "high"]].itertuples(index=False)
    points = interrupts.per_block(View(FigureSpec(id="interrupts", kind="interrupts", title=""), result))
    for _, of_setting in points.groupby(["workload", "cores"]):
        if fitted := interrupts.line(of_setting):
            yield tuple(math.exp(fitted.intercept + sign * fitted.intercept_reach) for sign in (0, -1, 1))


def without(said: set[str], ratios: Iterable[Ratio]) -> set[str]:
    """Those that are none of these ratios, with one to three digits."""
    for ratio, low, high in ratios:
        said = said - {f"{ratio:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})" for digits in (1, 2, 3)}
    return said


@pytest.mark.parametrize("section", TOLD)
def test_ratios_of_a_section_are_those_of_its_runs(section):
    text = RESULTS.partition(f"## {section}\n")[2].partition("\n## ")[0]
    left = set(re.findall(r"\d+\.\d+ \(\d+\.\d+–\d+\.\d+\)", " ".join(text.split())))
    assert left
    runs = [run for name in TOLD[section] for run in kept(name)]
    for run in runs:
        left = without(left, summarised(run))
    for run in runs:
        left = without(left, computed(run)) if left else left
    assert not left


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_summaries_are_what_their_trials_say(is_long):
    if not is_long:
        pytest.skip("takes minutes: --long")
    for run in [run for names in TOLD.values() for name in names for run in folders(name)]:
        assert_summary_is_what_trials_say(run)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tests_that_a_page_names_exist(page):
    named = [line.split("::") for line in code(page) if re.fullmatch(r"tests/\w+\.py::\w+", line)]
    assert [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text()] == []
    assert named or page.name != "SECURITY.md"


def test_files_in_the_docs_exist():
    """Of code spans, those that look like a file or folder of the checkout, and modules behind -m."""
    first = {entry.name for entry in ROOT.iterdir()}
    missing = []
    for page in PAGES:
        for line in code(page) if page.parent.name != "adding" else []:  # whose files are still to be written
            paths = [line] if re.fullmatch(r"[\w.*-]+(/[\w.*-]+)+/?", line) else []
            paths += [module.replace(".", "/") for module in re.findall(r"python3? -m ([\w.]+)", line)]
            missing += [
                f"{name_of(page)}: {path}"
                for path in paths
                if path.split("/")[0] in first and not [*ROOT.glob(path), *ROOT.glob(f"{path}.py")]
            ]
            if re.fullmatch(r"\w+\*?\.(c|h|def)", line) and not any(ROOT.glob(f"fastsocket/**/{line}")):
                missing.append(f"{name_of(page)}: {line}")
    assert not missing, "\n".join(missing)
