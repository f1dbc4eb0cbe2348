"""What contrib/ hands out: units that systemd takes, restrictions under which servers are accelerated, and metrics."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastsocket import shared_memory
from fastsocket.build import LIBRARY
from tests.harness.apps import APPS, PRELOAD
from tests.harness.commands import FASTSOCKET
from tests.harness.cpus import NEEDS_TWO_CPUS
from tests.harness.servers import HAPROXY_THREADS, LIGHTTPD_WORKERS, NGINX_WORKERS, served
from tests.harness.system_calls import numbers_by_name
from tests.harness.two_workers import ask_all, two_workers
from tests.harness.waiting import wait_until

CONTRIB = Path(__file__).parent.parent / "contrib"
SYSTEMD, UNITS = CONTRIB / "systemd", Path("/lib/systemd/system")
RULES, DASHBOARD = CONTRIB / "prometheus" / "fastsocket.rules.yml", CONTRIB / "grafana" / "fastsocket.json"
SERVERS = {"nginx": NGINX_WORKERS, "haproxy": HAPROXY_THREADS, "lighttpd": LIGHTTPD_WORKERS}
NEEDS_SYSTEMD = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def analyze(*arguments: str, unit_path: Path | None = None) -> str:
    """systemd-analyze(1), which needs no running systemd for this."""
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{unit_path}:"} if unit_path else None
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@contextmanager
def installed(name: str, directory: Path, *drop_ins: str):
    """A unit of the distribution with drop-ins of ours."""
    unit = directory / f"{name}.service"
    shutil.copy(UNITS / unit.name, unit)
    (directory / f"{unit.name}.d").mkdir()
    for drop_in in drop_ins:
        text = (SYSTEMD / drop_in).read_text()
        (directory / f"{unit.name}.d" / drop_in).write_text(text)
    yield unit


def exposure(unit: Path) -> float:
    """From 0, nothing is exposed, to 10."""
    told = analyze("security", "--offline=true", unit.name, unit_path=unit.parent)
    return float(re.search(r"Overall exposure level for [^:]*: ([\d.]+)", told)[1])


@NEEDS_SYSTEMD
@pytest.mark.parametrize("name", SERVERS)
def test_systemd_takes_the_drop_ins(name, tmp_path):
    with installed(name, tmp_path, "fastsocket.conf", "hardening.conf") as unit:
        assert analyze("verify", "--recursive-errors=no", str(unit), unit_path=tmp_path) == ""
        assert exposure(unit) < 5


@NEEDS_SYSTEMD
@pytest.mark.parametrize("unit", ["fastsocket-metrics.service", "fastsocket-metrics.timer"])
def test_systemd_takes_the_units(unit):
    assert analyze("verify", "--recursive-errors=no", str(SYSTEMD / unit)) == ""


def setting(name: str) -> list[str]:
    """The words of a line of hardening.conf."""
    return re.search(rf"^{name}=(.*)$", (SYSTEMD / "hardening.conf").read_text(), re.MULTILINE)[1].split()


@cache
def allowed_calls() -> set[str]:
    """Of SystemCallFilter, with the calls of each group."""
    names, calls = setting("SystemCallFilter"), set()
    while names:
        name = names.pop()
        if name.startswith("@"):
            lines = (line.strip() for line in analyze("syscall-filter", name).splitlines()[1:])
            names += [line for line in lines if line and not line.startswith("#")]
        else:
            calls.add(name)
    return calls


def restricted() -> list[str]:
    """A launcher with the restrictions of the unit: privileges that cannot grow, capabilities, system calls."""
    forbidden = numbers_by_name().keys() - allowed_calls()
    capabilities = ",".join(
        ["-all", *(f"+{name.lower().removeprefix('cap_')}" for name in setting("CapabilityBoundingSet"))]
    )
    numbers = ",".join(str(numbers_by_name()[name]) for name in forbidden)
    filters = [sys.executable, str(APPS / "forbidding.py"), "kill", numbers]
    return ["setpriv", "--no-new-privs", f"--bounding-set={capabilities}", *filters]


def launched(prepare: Callable[[Path, int], list[str]]) -> Callable[[Path, int], list[str]]:
    return lambda directory, port: [*restricted(), *prepare(directory, port)]


@NEEDS_SYSTEMD
@NEEDS_TWO_CPUS
@pytest.mark.privileged
@pytest.mark.parametrize("name", SERVERS)
def test_a_restricted_server_is_accelerated(name, tmp_path):
    usual = SERVERS[name]
    environment = PRELOAD | dict(word.split("=", 1) for word in setting("Environment"))
    with served(
        replace(usual, prepare=launched(usual.prepare), environment=environment), tmp_path, preload=False
    ) as one:
        wait_until(lambda: adopted(one.pid) == [1, 1], "both workers have adopted")


def adopted(pid: int) -> list[int]:
    return [cpu.adopted for cpu in shared_memory.counters(pid) if cpu.adopted]


# ---- metrics ---------------------------------------------------------------------------------------------------------


def expressions() -> list[str]:
    rules = re.findall(r"expr: (?:>-\n)?((?:.+\n)(?: {10,}.+\n)*)", RULES.read_text())
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return rules + [target["expr"] for panel in panels for target in panel["targets"]]


@NEEDS_TWO_CPUS
def test_rules_and_dashboard_ask_for_metrics_and_labels_that_there_are(two_workers_program):
    with two_workers(two_workers_program, {"LD_PRELOAD": str(LIBRARY)}) as app:
        ask_all(app)
        told = subprocess.run(
            [*FASTSOCKET, "status", "--prometheus"], capture_output=True, text=True, check=True
        ).stdout
    samples = [sample for family in text_string_to_metric_families(told) for sample in family.samples]
    labels = {name: set(of.labels) | {"instance"} for name, of in ((sample.name, sample) for sample in samples)}
    asked = [
        *itertools.chain.from_iterable(
            re.findall(r"(\bfastsocket_\w+)(?:\{([^}]*)\})?", text) for text in expressions()
        )
    ]
    assert len(asked) > 15
    for name, matchers in asked:
        assert set(re.findall(r"(\w+)=", matchers)) <= labels[name]
    grouped = {
        label for text in expressions() for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(", ")
    }
    assert grouped <= set.union(*labels.values())


def test_variables_are_those_of_the_library():
    known = set(re.findall(r'"(FSOCKET[A-Z_]*)"', (LIBRARY.parent.parent / "libfsocket" / "settings.c").read_text()))
    named = {name for path in CONTRIB.rglob("*.*") for name in re.findall(r"\bFSOCKET_[A-Z_]+\b", path.read_text())}
    assert named and named <= known
