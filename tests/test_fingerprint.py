"""What a run notes of its machine, and what a report says where runs differ in it."""

import os
import subprocess
from pathlib import Path

from analysis.circumstances import differences, differing
from setup.fingerprint import fingerprint
from setup.kernel_settings import SYSCTLS, UNKNOWN, kernel_settings
from tests.harness.runs import a_run


def test_a_fingerprint_says_what_other_tools_say():
    said = fingerprint()
    lscpu = subprocess.run(["lscpu"], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
    assert said["cpu"] == UNKNOWN or said["cpu"] in lscpu
    assert said["cpus"].endswith(f"of {os.cpu_count()}")
    assert (said["virtual machine"] != "no") == ("Hypervisor vendor" in lscpu)
    for flaw in Path("/sys/devices/system/cpu/vulnerabilities").glob("*"):
        assert (flaw.name in said["mitigations"]) == (flaw.read_text() != "Not affected\n")


def test_settings_of_the_kernel_are_those_that_it_has():
    said = kernel_settings()
    there = [name for name in SYSCTLS.split() if Path("/proc/sys", *name.split(".")).exists()]
    assert {name for name in said if not name.startswith("CONFIG_")} == set(there) and len(there) > 10
    assert all(said[name] in ("y", "n", "m") for name in said if name.startswith("CONFIG_") and name != "CONFIG_HZ")


def test_runs_with_other_circumstances_are_told_apart():
    was = a_run(fingerprint={"kernel": "6.1", "load before": "9 9 9"}, kernel_settings={"CONFIG_HZ": "250"})
    now = a_run(fingerprint={"kernel": "6.18", "load before": "1 1 1"})
    assert list(differences(was, now)) == [
        "another machine or version: kernel was 6.1, and is 6.18",
        "told by one of the two runs alone: CONFIG_HZ",
    ]
    assert differing([was, now, was]) == ["kernel"] and differing([was, was]) == []
