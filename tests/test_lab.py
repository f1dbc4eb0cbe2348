"""lab.py as a person calls it: what it measures, what it says to bad input, and what it leaves behind."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pandas
import pytest

from bench import collection
from bench.alone import SCOPE, alone
from fastsocket.processes import family
from fastsocket.steering.rfs import SOCKET_TABLE, Rfs
from records.run import read_run
from records.trials import TRIALS, read_trials
from setup import bootstrap
from setup.bootstrap import ROOT
from tests.harness.apps import compiled
from tests.harness.commands import LAB, WITHOUT_BPF, assert_one_line, fastsocket, lab, path_without
from tests.harness.cpus import ALL_CPUS
from tests.harness.locality import ALL, BY_CHANCE
from tests.harness.patience import patient
from topologies.tag import REGISTRY, RunTag, leftovers, processes_of

SHORT = ["--workload", "nginx", "--blocks", "1", "--seconds", "1"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--workload", "caddy"], ["'caddy'", "choose from nginx"]),
        (["--variant", "fast"], ["'fast'", "base, latest, attached, rfs, fastsocket"]),
        (["nonsense"], ["'nonsense'", "scalability"]),
        (["--cores", "1000"], ["1000", f"{len(ALL_CPUS)} CPUs"]),
        (["--cores", "two"], ["'two'", "such as 1,2"]),
        (["--blocks", "0"], ["--blocks"]),
        (["--seconds", "soon"], ["--seconds"]),
        (["--quick", "--paper"], ["choose one"]),
        (["--resume"], ["--out"]),
        (["paper", "--workload", "nginx"], ["several experiments", "such as scalability"]),
        (["--no-such-option"], ["--no-such-option"]),
        (["--client", "user@host"], ["--server-address", "go together"]),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments, words):
    before = sorted(ROOT.glob("results/*"))
    assert_one_line(lab("sweep", *arguments), 2, *words)
    assert sorted(ROOT.glob("results/*")) == before


def test_a_profile_is_of_one_core_count():
    assert_one_line(lab("profile", "nginx", "--cores", "1,2"), 2, "--cores", "'1,2'")


def test_an_unknown_verb_is_named():
    assert_one_line(lab("sweeep"), 2, "sweeep")


def test_a_directory_without_a_run_cannot_be_reported(tmp_path):
    assert_one_line(lab("report", str(tmp_path)), 2, "run.json is missing")


def test_a_dry_run_prints_the_schedule_and_touches_nothing(tmp_path):
    done = lab("sweep", "--dry-run", *SHORT, "--cores", "1", "--out", str(tmp_path / "run"))
    assert done.returncode == 0
    assert done.stdout.count("nginx") == 8
    assert "8 trials, about 0 min" in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(len(ALL_CPUS) > 2, reason="more core counts take longer")
def test_all_figures_take_less_than_40_minutes_at_their_quickest():
    minutes = re.search(r"about (\d+) min", lab("sweep", "paper", "--quick", "--dry-run").stdout.splitlines()[0])
    assert int(minutes[1]) < 40


def test_help_teaches_every_verb():
    shown = lab("--help").stdout
    for verb in ("sweep", "doctor", "figures", "report", "guest", "clean", "test"):
        assert verb in shown
    assert "--yes" in lab("sweep", "--help").stdout


def test_without_nginx_and_without_yes_it_says_what_to_install(tmp_path):
    done = lab("sweep", env=path_without("nginx", tmp_path))
    assert_one_line(done, 3, "nginx", "no apt-get")


def test_a_dry_run_says_what_is_left_out_and_why():
    done = lab("sweep", "--dry-run", "--workload", "redis", "--variant", "latest")
    assert done.stdout.splitlines()[-1].startswith("left out: redis latest: a single thread accepts")


NO_UTF8 = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "call, arguments",
    [(lab, ["sweep", "--dry-run", "--quick"]), (lab, ["model", "--help"]), (fastsocket, ["check", "cat"])],
)
def test_a_locale_without_utf8_changes_nothing(call, arguments):
    done, usual = call(*arguments, env=NO_UTF8), call(*arguments)
    assert (done.returncode, done.stderr) == (0, usual.stderr)


def test_modules_of_the_caller_are_not_taken_for_the_labs(tmp_path):
    (tmp_path / "typer.py").write_text("raise SystemExit('not the library')")
    lab_py = ["/usr/bin/python3", str(LAB[-1]), "sweep", "--help"]
    done = subprocess.run(
        lab_py, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "not the library" not in done.stderr


def test_servers_are_found_on_the_path_of_a_plain_user():
    done = lab("sweep", *SHORT, "--dry-run", env={**os.environ, "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr


def test_missing_packages_are_named_before_anything_is_installed(tmp_path):
    environment = path_without("wrk", tmp_path)
    (tmp_path / "apt-get").symlink_to("/usr/bin/apt-get")
    assert_one_line(lab("sweep", env=environment), 3, "wrk", "--yes")


@pytest.mark.parametrize(
    "file, before, after",
    [("requirements.txt", "typer==", "typer>="), ("pyproject.toml", "fastsocket.cli:main", "fastsocket.cli:other")],
)
def test_an_environment_made_from_other_files_is_not_ours(tmp_path, monkeypatch, file, before, after):
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setattr(bootstrap, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setattr(bootstrap, "PROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / "installed-from")
    monkeypatch.setattr(bootstrap, "VENV_PYTHON", Path(sys.executable))
    bootstrap.STAMP.write_text(bootstrap._wanted_stamp())
    assert bootstrap.has_environment()
    (tmp_path / file).write_text((tmp_path / file).read_text().replace(before, after))
    assert not bootstrap.has_environment()


@pytest.mark.parametrize(
    "arguments, wanted", [(["--yes", "test"], True), (["guest", "--", "test"], True), (["sweep"], False), ([], False)]
)
def test_the_tools_that_check_are_installed_for_tests_alone(tmp_path, monkeypatch, arguments, wanted):
    monkeypatch.setattr(bootstrap, "CHECKS_STAMP", tmp_path / "checks-from")
    assert bootstrap.lacks_checks(arguments) == wanted
    bootstrap.CHECKS_STAMP.write_text(bootstrap.CHECKS.read_text())
    assert not bootstrap.lacks_checks(arguments)


@pytest.mark.privileged
def test_a_person_who_is_not_root_is_told_to_become_it():
    """From a copy, and with Debian's Python, because nobody may read what is root's."""
    with TemporaryDirectory() as readable:
        os.chmod(readable, 0o755)
        shutil.copy(ROOT / "lab.py", readable)
        shutil.copy(ROOT / "requirements.txt", readable)
        shutil.copy(ROOT / "pyproject.toml", readable)
        for folder in ("setup", "workloads", "fastsocket"):
            shutil.copytree(ROOT / folder, Path(readable, folder))
        Path(readable, "bin").mkdir()
        (Path(readable, "bin") / "apt-get").symlink_to("/usr/bin/apt-get")
        done = subprocess.run(
            ["/usr/bin/python3", f"{readable}/lab.py", "--yes", "sweep"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            user=65534,
            group=65534,
            extra_groups=[],
            env={"PATH": f"{readable}/bin"},
        )
    assert_one_line(done, 3, "nginx", "only root can install", "sudo")


def in_results(folder: Path):
    """A sweep that does not say where its results go, and is to be drawn later."""
    return lab(
        "sweep",
        *SHORT,
        "--cores",
        "1",
        "--variant",
        "base",
        "--no-report",
        env={**os.environ, "FASTSOCKET_LAB_RESULTS": str(folder)},
    )


@pytest.mark.privileged
def test_a_second_run_is_told_of_the_first_until_that_ends_however_it_ends(tmp_path):
    holding = "from bench.alone import alone\nwith alone():\n    print('holds', flush=True)\n    input()"
    with subprocess.Popen(
        [sys.executable, "-c", holding], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout.readline() == b"holds\n"
        second = lab("sweep", *SHORT, "--cores", "1", "--out", str(tmp_path / "run"))
        assert_one_line(second, 3, "another run is measuring here", f"process {first.pid}:", SCOPE)
        assert not (tmp_path / "run").exists()
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv(SCOPE, "another one")
            with alone():
                pass
        first.kill()
        first.wait()
        with alone():
            pass


@pytest.mark.privileged
def test_runs_that_begin_in_the_same_second_have_directories_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSOCKET_LAB_RESULTS", str(tmp_path))
    monkeypatch.setattr(collection, "datetime", SimpleNamespace(now=lambda: datetime(2026, 11, 25)))
    made = [collection.new_directory("redis").name for _ in range(3)]
    assert made == [f"2026-11-25-000000-redis{number}" for number in ("", "-2", "-3")]


@pytest.mark.slow
@pytest.mark.privileged
def test_results_may_have_another_place_which_has_to_be_there(tmp_path):
    assert_one_line(in_results(tmp_path / "none"), 2, str(tmp_path / "none"), "--out", "-v")
    done = in_results(tmp_path)
    assert done.returncode == 0
    (run,) = tmp_path.iterdir()
    assert read_run(run).complete
    assert not (run / "report.html").exists()
    assert f"lab.py report {run}" in done.stdout


@pytest.mark.privileged
def test_without_the_right_to_make_namespaces_it_says_so_and_ends(tmp_path):
    """Root in a container may lack it."""
    limited = ["setpriv", "--inh-caps", "-sys_admin", "--bounding-set", "-sys_admin"]
    done = subprocess.run(
        [*limited, *LAB, "sweep", *SHORT, "--out", str(tmp_path / "run")],
        timeout=patient(60),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert_one_line(done, 3, "no network namespace", "lab.py doctor")
    assert not (tmp_path / "run").exists()


@pytest.mark.privileged
def test_a_sweep_without_bpf_ends_in_one_line(tmp_path):
    """Not in the log of libbpf."""
    done = subprocess.run(
        [*WITHOUT_BPF, *LAB, "sweep", *SHORT, "--out", str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert_one_line(done, 3, "cannot load the BPF programs", "CONFIG_BPF_SYSCALL", "lab.py doctor")
    assert not (tmp_path / "run").exists()


@pytest.mark.privileged
@pytest.mark.parametrize(
    "launcher, named, remedy",
    [
        (
            WITHOUT_BPF,
            ["emulated NIC", "locality probe", "lock contention probe", "steering by cpumap"],
            "CONFIG_BPF_SYSCALL",
        ),
        (
            ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf; exec "$@"', "sh"],
            ["kernel BTF", "locality probe", "lock contention probe"],
            "CONFIG_DEBUG_INFO_BTF",
        ),
        (
            ["setpriv", "--bounding-set", "-sys_admin,-bpf"],
            ["namespaces, multi-queue veth and RPS", "emulated NIC", "steering by cpumap"],
            "run as root",
        ),
    ],
    ids=["no BPF", "no BTF", "no privilege"],
)
def test_doctor_tells_the_remedy_that_fits_the_cause(launcher, named, remedy):
    done = subprocess.run([*launcher, *LAB, "doctor", "--json"], capture_output=True, text=True, cwd=ROOT)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    for name in named:
        assert not checks[name]["ok"]
        assert remedy in checks[name]["remedy"]
        assert len(checks[name]["detail"].splitlines()) == 1


def test_doctor_says_where_a_connection_cannot_be_given_its_port(tmp_path):
    """As on kernels before 6.3: setsockopt() refuses IP_LOCAL_PORT_RANGE."""
    refusing = compiled("refusing.c", tmp_path, "-shared", "-fPIC")
    done = lab("doctor", "--json", env={**os.environ, "LD_PRELOAD": str(refusing)})
    (check,) = [check for check in json.loads(done.stdout) if check["name"] == "IP_LOCAL_PORT_RANGE"]
    assert (check["ok"], check["required"]) == (False, False)
    assert "91d0b78c5177" in check["remedy"]


@pytest.mark.privileged
def test_an_unwritable_directory_is_named():
    assert_one_line(lab("sweep", *SHORT, "--out", "/proc/nowhere/run"), 2, "/proc/nowhere/run", "--out")


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.privileged
def test_an_nginx_that_does_not_start_shows_its_own_error_and_leaves_nothing(tmp_path):
    broken = tmp_path / "bin" / "nginx"
    broken.parent.mkdir()
    broken.write_text(
        f'#!/bin/sh\n[ "$1" = -v ] && exec {shutil.which("nginx")} -v\n'
        f'exec {shutil.which("nginx")} "$@" -g "nonsense;"\n'
    )
    broken.chmod(0o755)
    environment = {**os.environ, "PATH": f"{broken.parent}:{os.environ['PATH']}"}
    done = lab("sweep", *SHORT, "--cores", "1", "--out", str(tmp_path / "run"), env=environment)
    assert_one_line(done, 3, 'unknown directive "nonsense"')
    assert not (tmp_path / "run").exists()
    assert leftovers() == []


def in_its_place(command, directory, script):
    """An environment where a command is this shell script, in which REAL is the command itself."""
    (directory / "bin").mkdir()
    (directory / "bin" / command).write_text(f"#!/bin/sh\nREAL={shutil.which(command)}\n{script}\n")
    (directory / "bin" / command).chmod(0o755)
    return {**os.environ, "PATH": f"{directory}/bin:{os.environ['PATH']}"}


NEVER_ENDS = '[ "$1" = --version ] && exec $REAL --version\nexec sleep 1000'


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.privileged
def test_a_load_generator_that_does_not_end_costs_its_trials_and_not_the_sweep(tmp_path):
    """Three in a row, and the rest of that workload."""
    environment = in_its_place("redis-benchmark", tmp_path, NEVER_ENDS) | {"FASTSOCKET_LAB_GRACE_SECONDS": "1"}
    done = lab(
        "sweep",
        "--workload",
        "redis,nginx",
        "--variant",
        "base",
        "--blocks",
        "1",
        "--seconds",
        "1",
        "--cores",
        "1",
        "--out",
        str(tmp_path / "run"),
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    run, trials = read_run(tmp_path / "run"), read_trials(tmp_path / "run")
    failed = [trial for trial in trials if trial.failed]
    assert [trial.workload for trial in failed] == ["redis"] * 3
    assert [trial.workload for trial in trials if not trial.failed] == ["nginx"] * 4
    assert run.complete and run.left_out == {"redis": failed[-1].failed}
    assert failed[-1].failed.startswith("redis-benchmark did not end within 1 s")
    assert run.options.limits["grace_seconds"] == 1
    assert "Failed: 3 of 7 trials." in (tmp_path / "run" / "report.html").read_text()
    assert leftovers() == []
    again = lab("sweep", "--resume", "--no-report", "--out", str(tmp_path / "run"))  # with the real one
    assert again.returncode == 0, again.stderr
    assert len(read_trials(tmp_path / "run")) == 8 and not read_run(tmp_path / "run").left_out


# lab.py with the experiments of another folder.
ELSEWHERE = """
import pathlib, sys
from bench import experiment
experiment.FOLDER = pathlib.Path(sys.argv.pop(1))
import lab
sys.exit(lab.main())
"""


@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.parametrize("parts, status", [(["redis", "overhead"], 0), (["redis", "scalability-redis"], 3)])
def test_a_part_that_cannot_be_measured_does_not_end_the_others(tmp_path, parts, status):
    (tmp_path / "experiments").mkdir()
    for name in parts:
        shutil.copy(ROOT / "experiments" / f"{name}.toml", tmp_path / "experiments")
    (tmp_path / "experiments" / "all.toml").write_text(f'title = "All"\nparts = {json.dumps(parts)}\n')
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            ELSEWHERE,
            tmp_path / "experiments",
            "sweep",
            "all",
            "--blocks",
            "1",
            "--seconds",
            "1",
            "--cores",
            "1",
            "--out",
            tmp_path / "run",
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env=in_its_place("redis-benchmark", tmp_path, "[ $1 = --version ] && exec $REAL $1; exit 7"),
    )
    if status:
        assert_one_line(done, status, "nothing could be measured: redis-benchmark failed: it said nothing")
        return
    assert done.returncode == status, done.stderr
    assert "redis-benchmark failed" in read_run(tmp_path / "run" / "redis").options.why_not
    assert read_run(tmp_path / "run" / "overhead").complete
    assert "redis-benchmark failed" in (tmp_path / "run" / "report.html").read_text()


def test_doctor_refuses_what_it_does_not_know():
    assert_one_line(lab("doctor", "--jsno"), 2, "--jsno", "--json")


@pytest.mark.privileged
def test_doctor_finds_this_machine_able():
    done = lab("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, [check for check in checks.values() if not check["ok"]]
    assert checks["emulated NIC"]["ok"]
    assert all(bool(check["remedy"]) != check["ok"] for check in checks.values())


@pytest.mark.privileged
def test_doctor_names_the_remedy_for_what_is_missing(tmp_path):
    done = lab("doctor", "--json", env=path_without("wrk", tmp_path))
    (missing,) = [check for check in json.loads(done.stdout) if check["name"] == "package wrk"]
    assert done.returncode == 1
    assert not missing["ok"]
    assert "apt-get install wrk" in missing["remedy"]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """One real sweep: one block of every variant on all CPUs."""
    directory = tmp_path_factory.mktemp("sweep") / "run"
    done = lab("sweep", *SHORT, "--cores", str(len(ALL_CPUS)), "--out", str(directory))
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.slow
@pytest.mark.privileged
def test_a_sweep_leaves_a_whole_run_directory(finished_run):
    for name in ("run.json", TRIALS, "trials.parquet", "summary.csv", "report.html"):
        assert (finished_run / name).stat().st_size > 0
    for folder, pattern in (("figures", "*.svg"), ("figures", "*.png"), ("tables", "*.csv"), ("tables", "*.md")):
        assert list((finished_run / folder).glob(pattern))
    run = read_run(finished_run)
    assert run.complete
    assert len(read_trials(finished_run)) == run.planned_trials == 8


@pytest.mark.slow
@pytest.mark.privileged
def test_locality_is_what_each_variant_promises(finished_run):
    summary = pandas.read_csv(finished_run / "summary.csv")
    local = summary[summary.metric == "passive_local_percent"].set_index("variant").estimate
    assert local["fastsocket"] >= ALL
    if len(ALL_CPUS) > 1:
        for variant in ("base", "latest"):
            assert local[variant] == BY_CHANCE


@pytest.mark.slow
@pytest.mark.privileged
def test_every_trial_has_every_probe_and_fastsocket_its_counters(finished_run):
    wanted = {
        "cps",
        "latency_p50_ms",
        "latency_p99_ms",
        "latency_max_ms",
        "errors",
        "passive_local_percent",
        "accept_local_percent",
        "contentions_per_connection",
    }
    for trial in read_trials(finished_run):
        assert wanted <= set(trial.metrics)
        assert ("cpu_us_per_request" in trial.metrics) != ("cpu_us_per_request" in trial.unavailable)
        assert [use.cpu for use in trial.cpu] == ALL_CPUS
        assert (trial.library is not None) == (trial.variant == "fastsocket")
        if trial.library:
            accepted = sum(cpu.accepted_local + cpu.accepted_global + cpu.accepted_neighbour for cpu in trial.library)
            assert accepted >= trial.metrics["cps"] * trial.seconds * 0.99


@pytest.mark.slow
@pytest.mark.privileged
def test_figures_and_report_can_be_made_again(finished_run):
    assert lab("report", str(finished_run)).stdout.strip().endswith("report.html")
    drawn = lab("figures", str(finished_run)).stdout.split()
    assert drawn and all(Path(path).exists() for path in drawn)
    assert_one_line(lab("figures", str(finished_run), "--only", "no-such-figure"), 2, "no-such-figure")


@pytest.mark.slow
@pytest.mark.privileged
def test_a_run_is_not_overwritten(finished_run):
    assert_one_line(lab("sweep", *SHORT, "--out", str(finished_run)), 2, "--resume")


class Running:
    """A sweep in the background whose trials can be waited for."""

    def __init__(self, directory, *arguments, variants="base,fastsocket"):
        self.directory = directory
        self.process = subprocess.Popen(
            [*LAB, "sweep", *SHORT, "--cores", "1", "--variant", variants, "--out", str(directory), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_for_trials(self, count):
        descriptor = os.pidfd_open(self.process.pid)
        try:
            while len(read_trials(self.directory)) < count:
                ended = select.select([descriptor], [], [], 0.05)[0]
                assert not ended, self.process.communicate()
        finally:
            os.close(descriptor)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_keeps_its_trials_and_leaves_nothing_else(tmp_path, number):
    sweep = Running(tmp_path / "run")
    sweep.wait_for_trials(2)
    ours = set(family(sweep.process.pid))
    (tag,) = [tag for lock in REGISTRY.glob("*.lock") if ours & set(processes_of(tag := f"fastsocket-lab:{lock.stem}"))]
    sweep.process.send_signal(number)
    _out, err = sweep.process.communicate(timeout=patient(60))
    assert sweep.process.returncode == 130, err
    assert processes_of(tag) == []
    assert leftovers() == []
    assert len(read_trials(tmp_path / "run")) >= 2
    assert not read_run(tmp_path / "run").complete
    assert "Incomplete: " in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.privileged
def test_a_resumed_sweep_ends_with_the_schedule_of_one_that_was_never_stopped(tmp_path):
    sweep = Running(tmp_path / "run", "--no-report")
    sweep.wait_for_trials(2)
    sweep.process.send_signal(signal.SIGINT)
    sweep.process.communicate(timeout=patient(60))
    kept = read_trials(tmp_path / "run")
    done = lab("sweep", "--resume", "--no-report", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    trials = read_trials(tmp_path / "run")
    assert trials[: len(kept)] == kept
    assert [trial.index for trial in trials] == list(range(6))
    assert read_run(tmp_path / "run").complete


@pytest.fixture
def bystanders(tmp_path):
    """What is not of the killed run: a plain process, one in a namespace of its own, and a run that lives."""
    with RunTag() as living:
        sleepers = [subprocess.Popen([*prefix, "sleep", "120"]) for prefix in ([], ["unshare", "--net", "--mount"])]
        yield sleepers, living
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.privileged
def test_after_a_kill_clean_removes_what_that_run_left_and_nothing_else(tmp_path, bystanders):
    sleepers, living = bystanders
    sweep = Running(tmp_path / "run")
    sweep.wait_for_trials(1)
    sweep.process.kill()
    sweep.process.communicate()
    (leftover,) = leftovers()
    assert "removed what a killed run left" in lab("clean").stdout
    assert not leftover.directory.exists()
    assert processes_of(leftover.tag) == []
    assert all(sleeper.poll() is None for sleeper in sleepers)
    assert living.mount_point.is_dir()
    assert lab("clean").stdout == "nothing to clean\n"


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.skipif(Rfs().why_not() is not None, reason=f"no RFS here: {Rfs().why_not()}")
def test_a_setting_of_the_machine_is_put_back_after_a_kill(tmp_path):
    before = SOCKET_TABLE.read_text()
    sweep = Running(tmp_path / "run", variants="rfs")
    while SOCKET_TABLE.read_text() == before:
        assert sweep.process.poll() is None, sweep.process.communicate()
    sweep.process.kill()
    sweep.process.communicate()
    assert SOCKET_TABLE.read_text() != before
    assert "removed what a killed run left" in lab("clean").stdout
    assert SOCKET_TABLE.read_text() == before


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.privileged
def test_the_next_sweep_removes_it_too(tmp_path):
    first = Running(tmp_path / "first")
    first.wait_for_trials(1)
    first.process.kill()
    first.process.communicate()
    (leftover,) = leftovers()
    second = Running(tmp_path / "second", "--no-report")
    second.wait_for_trials(1)
    assert processes_of(leftover.tag) == []
    assert not leftover.directory.exists()
    second.process.send_signal(signal.SIGINT)
    assert "removed what a killed run left" in second.process.communicate(timeout=patient(60))[0]
