"""The pages in docs/adding/ are followed literally in a copy of the checkout: their files, lines and commands.

A code block belongs to the file that the text before it names last; one in diff changes that file.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "adding"
LEFT_BEHIND = shutil.ignore_patterns(
    ".git", ".venv", ".kernels", ".peers", ".hypothesis", ".*_cache", ".coverage*", "__pycache__"
)
BLOCK = re.compile(r"(.*?)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"`([\w./-]+\.\w+)`")


def copied(folder: Path) -> Path:
    return shutil.copytree(ROOT, folder / "checkout", ignore=LEFT_BEHIND, symlinks=True)


@pytest.fixture
def checkout(tmp_path):
    return copied(tmp_path)


def follow(page: str, checkout: Path) -> list[subprocess.CompletedProcess]:
    """Do what the page says. Returns what each of its commands said."""
    done, file = [], None
    for text, language, block in BLOCK.findall((PAGES / page).read_text()):
        file = [file, *NAMED_FILE.findall(text)][-1]
        if language == "sh":
            done += [run(line, checkout) for line in block.splitlines()]
        elif language == "diff":
            change(checkout / file, block.splitlines(keepends=True))
        else:
            (checkout / file).write_text(block)
    return done


def change(file: Path, lines: list[str]) -> None:
    before = "".join(line[1:] for line in lines if line[0] != "+")
    after = "".join(line[1:] for line in lines if line[0] != "-")
    assert file.read_text().count(before) == 1, f"{file} does not have, once:\n{before}"
    file.write_text(file.read_text().replace(before, after))


def run(command: str, checkout: Path) -> subprocess.CompletedProcess:
    """A command of a page; lab.py without setting up an environment of the copy's own."""
    program, *words = shlex.split(command)
    assert program == "python3"
    as_module = ["-c", "import sys, lab; sys.exit(lab.main())", *words[1:]] if words[0] == "lab.py" else words
    return subprocess.run([sys.executable, *as_module], cwd=checkout, capture_output=True, text=True)


def checks(doctor: subprocess.CompletedProcess) -> dict[str, dict]:
    return {check["name"]: check for check in json.loads(doctor.stdout)}


def test_a_server(checkout):
    doctor, schedule = follow("server.md", checkout)
    package = checks(doctor)["package gunicorn"]
    assert package["ok"] or "apt-get install gunicorn" in package["remedy"]
    assert schedule.returncode == 0, schedule.stderr
    assert "gunicorn fastsocket on" in schedule.stdout and "gunicorn latest on" not in schedule.stdout
    types = subprocess.run([sys.executable, "-m", "mypy", "workloads/gunicorn.py"], cwd=checkout, capture_output=True)
    assert types.returncode == 0, types.stdout


def test_a_steering_backend(checkout):
    usage, doctor = follow("backend.md", checkout)
    assert "rps" in usage.stdout
    assert "can do rss" in checks(doctor)["steering by rps"]["detail"]


@pytest.fixture(scope="module")
def with_experiment(tmp_path_factory):
    """A checkout with the page's experiment, and its schedule."""
    checkout = copied(tmp_path_factory.mktemp("experiment"))
    return checkout, *follow("experiment.md", checkout)


def test_an_experiment(with_experiment):
    _, schedule = with_experiment
    assert schedule.returncode == 0, schedule.stderr
    assert "haproxy atr on" in schedule.stdout


@pytest.mark.parametrize(
    "was, now, words",
    [
        ('kind = "ratios"', 'kind = "pie"', ["unknown figure kind 'pie'", "throughput, ratios"]),
        ('"haproxy"', '"caddy"', ["unknown workload 'caddy'", "nginx, haproxy"]),
        ('"atr"', '"warp"', ["unknown variant 'warp'", "base, latest"]),
        ("atr = ", "art = ", ["unknown variant 'art'"]),
        ("blocks = 5", "blocks = 0", ["quick.blocks", "greater than or equal to 1"]),
    ],
)
def test_an_experiment_with_an_unknown_name_is_refused_when_it_is_read(with_experiment, was, now, words):
    checkout, _ = with_experiment
    text = (checkout / "experiments" / "steering.toml").read_text()
    (checkout / "experiments" / "wrong.toml").write_text(text.replace(was, now))
    done = run("python3 lab.py sweep wrong", checkout)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert all(word in line for word in ["experiments/wrong.toml", *words])


@pytest.mark.needs("gcc")
def test_a_counter(checkout):
    built, named = follow("counter.md", checkout)
    assert built.returncode == 0, built.stderr
    assert named.stdout == "resumed - Local listeners taken up again at once by their worker\n"


@pytest.mark.needs("gcc")
@pytest.mark.privileged
def test_a_hook(checkout):
    (built,) = follow("hook.md", checkout)
    assert built.returncode == 0, built.stderr
    entering = "import ctypes; own = open('/proc/self/ns/net'); print(ctypes.CDLL(None).setns(own.fileno(), 0))"
    library = checkout / "fastsocket" / "build" / "libfsocket.so"
    environment = os.environ | {"LD_PRELOAD": str(library), "FSOCKET_VERBOSE": "on"}
    done = subprocess.run([sys.executable, "-c", entering], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "libfsocket: a thread has entered another namespace\n")


def test_a_figure(checkout):
    (drawn,) = follow("figure.md", checkout)
    assert drawn.returncode == 0, drawn.stderr
    folder = checkout / "results" / "reference" / "scalability" / "figures"
    assert "99th percentile of latency" in (folder / "latency.svg").read_text()
    assert (folder / "latency.csv").read_text().startswith("workload,variant,cores,metric")
