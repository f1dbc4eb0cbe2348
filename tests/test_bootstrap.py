"""From a bare machine to one that can run the lab: what is asked, what is done with the answer, and what is undone."""

import os
import pty
import re
import subprocess
import threading
from pathlib import Path

import pytest

from setup import bootstrap
from setup.packages import ENVIRONMENT, GUEST, NEEDS, Package
from tests.harness.commands import LAB, assert_one_line, path_without
from tests.harness.patience import patient


def asked(answer: bytes, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """What lab.py says on a terminal, to somebody who answers its question."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        return subprocess.run([*LAB, "sweep"], stdin=theirs, capture_output=True, text=True, env=environment)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.privileged
@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"what?\n", b"\x04"], ids=["no", "nothing", "a question", "the end"])
def test_nothing_is_installed_unless_the_answer_is_yes(tmp_path, answer):
    environment = path_without("wrk", tmp_path)
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho called >&2\n")
    (tmp_path / "apt-get").chmod(0o755)
    done = asked(answer, environment)
    assert "Install the Debian packages wrk? [y/N]" in done.stdout
    assert_one_line(done, 3, "nothing was installed")


def test_each_command_that_a_test_needs_has_its_package():
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    needed = set(re.findall(r'\bneeds?\("(\w+)"\)', tests))
    packaged = {package.command for packages in NEEDS.values() for package in packages}
    assert {"gcc", "clang"} <= needed
    assert needed - packaged == set()


def test_a_step_that_fails_shows_its_first_error(capsys):
    with pytest.raises(SystemExit) as ended:
        bootstrap._run("apt-get update", ["sh", "-c", "echo Hit:1; echo E: no route; echo E: more; exit 100"])
    assert ended.value.code == 3
    assert capsys.readouterr().err == "lab.py: apt-get update failed: E: no route (is the network there?)\n"


def test_no_service_starts_while_packages_are_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "POLICY", tmp_path / "policy-rc.d")
    with bootstrap._no_service_starts():
        assert subprocess.run([bootstrap.POLICY, "nginx", "start"]).returncode == 101  # Debian policy 9.3.3: forbidden
    assert not bootstrap.POLICY.exists()
    bootstrap.POLICY.write_text(bootstrap.POLICY_TEXT)  # as a killed installation leaves it
    assert bootstrap.remove_policy() and not bootstrap.remove_policy()


def test_a_policy_of_the_machine_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "POLICY", tmp_path / "policy-rc.d")
    bootstrap.POLICY.write_text("#!/bin/sh\nexit 104\n")
    with bootstrap._no_service_starts():
        assert bootstrap.POLICY.read_text() == "#!/bin/sh\nexit 104\n"
    assert not bootstrap.remove_policy() and bootstrap.POLICY.exists()


def test_a_client_on_another_machine_takes_ssh(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    plain, over_ssh = (
        {package.name for package in bootstrap.missing_packages(["sweep", *words])}
        for words in ([], ["--client=user@host"])
    )
    assert over_ssh - plain == {"openssh-client"}


def test_in_ci_tests_need_what_guests_need(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    assert not {*GUEST} <= {*bootstrap.needed_packages("test")}
    monkeypatch.setenv("CI", "true")
    assert {*GUEST} <= {*bootstrap.needed_packages("test")} and not {*GUEST} <= {*bootstrap.needed_packages("sweep")}


@pytest.mark.parametrize("first", [[], [*ENVIRONMENT]], ids=["at once", "after what the environment is made with"])
def test_packages_are_installed_beside_libraries(monkeypatch, first):
    installed, both = [], threading.Barrier(2, timeout=patient(15))

    def install(packages):
        if packages != [*ENVIRONMENT]:
            both.wait()
        installed.append(packages)

    clang = Package("clang", command="clang")
    monkeypatch.setattr(bootstrap, "missing_packages", lambda arguments: [*first, clang])
    monkeypatch.setattr(bootstrap, "_install_packages", install)
    monkeypatch.setattr(bootstrap, "_install_libraries", lambda *what: both.wait())
    bootstrap.ensure(["--yes", "sweep"], "")
    assert installed == [*([first] if first else []), [clang]]
