"""The container image, really built and really run: what it lacks without options, whose the results are, how it ends.

It takes a container engine: the command named by CONTAINER_ENGINE, or docker. Containers run without a network.
"""

import json
import os
import re
import select
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pandas
import pytest

from records.run import read_run
from records.trials import TRIALS, read_trials
from setup.bootstrap import ROOT
from setup.container import NEEDS

CPUS = sorted(os.sched_getaffinity(0))
ENGINE = os.environ.get("CONTAINER_ENGINE", "docker")
SUFFICIENT = [word for need in NEEDS for word in need.option.split()]
SHORT = [
    "sweep",
    "--workload",
    "nginx",
    "--variant",
    "base,fastsocket",
    "--cores",
    str(len(CPUS)),
    "--blocks",
    "1",
    "--seconds",
    "1",
]
OWNER = 12345
GRACE_SECONDS = 10  # docker stop's own


def engine(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run([ENGINE, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)


def why_no_engine() -> str:
    try:
        asked = engine("info")
    except FileNotFoundError:
        return f"no container engine: there is no {ENGINE}"
    return f"no container engine: {asked.stderr.strip().splitlines()[-1]}" if asked.returncode else ""


pytestmark = [
    pytest.mark.image,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(reason := why_no_engine()), reason=reason or "there is one"),
]


@pytest.fixture(scope="module")
def image() -> str:
    """Built from the checkout: beside other tests, before those that are alone find it in the engine's cache. An engine
    that has no bridge builds on the machine's own network."""
    name = "fastsocket-lab:test"
    bridged = "bridge" in engine("network", "ls", "--format", "{{.Name}}").stdout.split()
    built = engine("build", "--quiet", "--tag", name, *([] if bridged else ["--network", "host"]), str(ROOT))
    assert built.returncode == 0, built.stderr
    return name


@pytest.fixture
def results(tmp_path) -> Path:
    """A folder of somebody else than root."""
    folder = tmp_path / "results"
    folder.mkdir()
    os.chown(folder, OWNER, OWNER)
    return folder


def command(image: str, *arguments: str, options=("--privileged",), results: Path | None = None) -> list[str]:
    mount = ["--volume", f"{results}:/results"] if results else []
    return ["run", "--rm", "--network", "none", *mount, *options, image, *arguments]


def lab(image: str, *arguments: str, **how) -> subprocess.CompletedProcess:
    return engine(*command(image, *arguments, **how))


def the_run(results: Path) -> Path:
    (directory,) = results.iterdir()
    return directory


def owners(results: Path) -> set[int]:
    return {path.stat().st_uid for path in results.rglob("*")}


def local_percent(run: Path) -> pandas.Series:
    """By variant."""
    summary = pandas.read_csv(run / "summary.csv")
    return summary[summary.metric == "passive_local_percent"].set_index("variant").estimate


def assert_local(run: Path) -> None:
    local = local_percent(run)
    assert local["fastsocket"] >= 99
    if len(CPUS) > 1:
        assert local["base"] == pytest.approx(100 / len(CPUS), abs=10)


# ---- what is in it


def test_it_has_no_compiler_and_lists_what_it_has(image):
    inside = engine(
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "sh",
        image,
        "-c",
        "command -v gcc cc clang make pip; cat debian-packages.txt",
    )
    assert not re.search(r"^/", inside.stdout, re.MULTILINE)
    assert re.search(r"^nginx\s+1\.", inside.stdout, re.MULTILINE)


def test_it_says_what_it_can_do(image):
    assert "sweep" in lab(image).stdout
    assert (
        "can be accelerated"
        in engine("run", "--rm", "--network", "none", "--entrypoint", "fastsocket", image, "check", "nginx").stdout
    )


# ---- doctor


def checks(image: str, *options: str) -> tuple[int, dict[str, dict]]:
    done = lab(image, "doctor", "--json", options=options)
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)}


@pytest.mark.alone
@pytest.mark.parametrize("options", [["--privileged"], SUFFICIENT], ids=["privileged", "just what it takes"])
def test_doctor_finds_it_able(image, options):
    status, found = checks(image, *options)
    assert status == 0, [check for check in found.values() if check["required"] and not check["ok"]]
    assert found["locality probe"]["ok"]


@pytest.mark.alone
def test_doctor_names_what_it_was_not_given(image):
    status, found = checks(image)
    assert status == 1
    assert {name for name, check in found.items() if check["required"] and not check["ok"]} >= {
        "Docker: CAP_SYS_ADMIN",
        "Docker: CAP_NET_ADMIN",
        "Docker: CAP_SYS_PTRACE",
        "Docker: CAP_SYS_NICE",
        "Docker: writable /proc/sys",
    }
    assert "--cap-add SYS_ADMIN" in found["Docker: CAP_SYS_ADMIN"]["remedy"]
    assert all("--privileged" in found[name]["remedy"] for name in ("emulated NIC", "locality probe"))


# ---- sweep


@pytest.mark.alone
@pytest.mark.parametrize("options", [["--privileged"], SUFFICIENT], ids=["privileged", "just what it takes"])
def test_results_land_in_the_folder_and_belong_to_its_owner(image, results, options):
    done = lab(image, *SHORT, results=results, options=options)
    assert done.returncode == 0, done.stderr
    assert_local(the_run(results))
    assert owners(results) == {OWNER}
    assert read_run(the_run(results)).fingerprint["container"].startswith("Docker")
    drawn = lab(
        image,
        "figures",
        f"/results/{the_run(results).name}",
        results=results,
        options=["--user", f"{OWNER}:{OWNER}", "--cap-drop", "ALL"],
    )
    assert drawn.returncode == 0, drawn.stderr
    assert owners(results) == {OWNER}


@pytest.mark.parametrize(
    "options, words, status",
    [
        (["--privileged"], ["/results", "--out"], 2),
        ([], ["CAP_SYS_ADMIN", "--cap-add SYS_ADMIN", "--privileged"], 3),
        (
            ["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE", "--cap-add", "SYS_NICE"],
            ["systempaths=unconfined"],
            3,
        ),
    ],
)
def test_what_cannot_work_is_said_in_one_line(image, options, words, status):
    done = lab(image, *SHORT, options=options)
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in words)


class Running:
    """A sweep in a container that goes on, and its directory when the first trial is in."""

    def __init__(self, image: str, results: Path, name: str):
        self.name = name
        arguments = [
            ENGINE,
            *command(image, *SHORT, "--blocks", "5", results=results, options=("--privileged", "--name", name)),
        ]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.results = results

    def wait_for_a_trial(self) -> Path:
        descriptor = os.pidfd_open(self.process.pid)
        try:
            while not (begun := [path.parent for path in self.results.glob(f"*/{TRIALS}") if read_trials(path.parent)]):
                assert not select.select([descriptor], [], [], 0.05)[0], self.process.communicate()
        finally:
            os.close(descriptor)
        return begun[0]

    def close(self) -> None:
        engine("rm", "--force", self.name)
        self.process.communicate()


@pytest.mark.alone
@pytest.mark.parametrize("how", ["docker stop", "Ctrl-C"])
def test_it_ends_within_the_grace_time_and_keeps_what_was_measured(image, results, how):
    with closing(Running(image, results, f"fastsocket-lab-test-{os.getpid()}")) as sweep:
        directory = sweep.wait_for_a_trial()
        asked = time.monotonic()
        if how == "Ctrl-C":
            sweep.process.send_signal(signal.SIGINT)
        else:
            engine("stop", "--time", str(GRACE_SECONDS), sweep.name)
        sweep.process.communicate(timeout=60)
        assert time.monotonic() - asked < GRACE_SECONDS
        assert sweep.process.returncode == 130  # and not 137, by SIGKILL
    assert read_trials(directory) and not read_run(directory).complete
    assert "Incomplete: " in (directory / "report.html").read_text()
    assert owners(results) == {OWNER}


@pytest.mark.alone
def test_two_at_once_are_told_apart(image, results):
    both = [
        subprocess.Popen(
            [ENGINE, *command(image, *SHORT, results=results)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ended = [(one.communicate()[1], one.returncode) for one in both]
    assert ended == [("", 0)] * 2
    runs = list(results.iterdir())
    assert len({read_run(run).fingerprint["container"] for run in runs}) == len(runs) == 2
    for run in runs:
        local = local_percent(run)  # on CPUs that the other one keeps busy neighbours help out
        assert local["fastsocket"] > local["base"]
