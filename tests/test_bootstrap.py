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


APT_GET = """\
#!/bin/sh
echo "apt-get $*" >>{calls}
for word in "$@"; do
    case $word in
        --option=Dir::Etc::SourceList=*) read -r list <"${{word##*=}}"; echo "$list" >>{calls} ;;
        toy | plain) [ {makes} = nothing ] || printf '#!/bin/sh\\n' >{bin}/"$word" ;;
    esac
done
/bin/chmod -R +x {bin}
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Its apt-get and systemctl note how they are called. Says how to make them, and how to read the notes."""
    programs, units, calls = (tmp_path / name for name in ("bin", "units", "calls"))

    def made(makes: str = "all") -> Path:
        programs.mkdir()
        units.mkdir()
        (programs / "apt-get").write_text(APT_GET.format(calls=calls, makes=makes, bin=programs))
        (programs / "systemctl").write_text(f'#!/bin/sh\necho "systemctl $*" >>{calls}\n')
        for program in programs.iterdir():
            program.chmod(0o755)
        (units / "toy.service").touch()
        return calls

    monkeypatch.setattr(bootstrap, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(bootstrap, "UNITS", units)
    monkeypatch.setattr(bootstrap, "OFFLINE", tmp_path / "offline")
    monkeypatch.setenv("PATH", str(programs))
    return made


TOY, PLAIN = Package("toy", command="toy"), Package("plain", command="plain")


def test_packages_are_installed_at_once_and_their_services_do_not_start_at_boot(machine):
    calls = machine()
    bootstrap._install_packages([TOY, PLAIN])
    assert calls.read_text().splitlines() == [
        "apt-get -q update",
        "apt-get -q install -y --no-install-recommends toy plain",
        "systemctl disable --quiet toy",
    ]


def test_a_package_without_its_command_is_one_line(machine, capsys):
    machine(makes="nothing")
    with pytest.raises(SystemExit) as ended:
        bootstrap._install_packages([TOY, PLAIN])
    assert ended.value.code == 3
    assert "installed, but still not found: toy plain" in capsys.readouterr().err


def test_a_pack_is_the_only_source_of_its_packages(machine):
    calls = machine()
    bootstrap.OFFLINE.mkdir()
    bootstrap._install_packages([PLAIN])
    update, source, install, again = calls.read_text().splitlines()
    assert source == again == f"deb [trusted=yes] {bootstrap.OFFLINE.as_uri()}/packages ./"
    for call in (update, install):
        assert "--option=Dir::Etc::SourceParts=- " in call
    assert install.endswith("install -y --no-install-recommends plain")


def test_a_machine_without_apt_is_told_so(tmp_path):
    done = subprocess.run([*LAB, "--yes", "sweep"], capture_output=True, text=True, env=path_without("wrk", tmp_path))
    assert_one_line(done, 3, "missing wrk", "there is no apt-get")


def test_checks_are_installed_once_for_each_list_of_them(monkeypatch, tmp_path):
    installed = []
    monkeypatch.setattr(bootstrap, "CHECKS_STAMP", tmp_path / "stamp")
    monkeypatch.setattr(bootstrap, "lacks_cluster", lambda arguments: False)
    monkeypatch.setattr(bootstrap, "is_finished", lambda: False)
    monkeypatch.setattr(bootstrap, "_pip", lambda what, *arguments: installed.append(arguments[-1]))
    for _ in range(2):
        bootstrap._install_libraries(["test"], True, [])
    assert installed == [str(bootstrap.CHECKS)]


@pytest.mark.parametrize("arguments", [[], ["sweep", "--help"]], ids=["nothing", "help"])
def test_who_asks_for_help_gets_it_and_nothing_is_installed(monkeypatch, capsys, arguments):
    monkeypatch.setattr(bootstrap, "missing_packages", lambda arguments: [TOY])
    with pytest.raises(SystemExit) as ended:
        bootstrap.ensure(arguments, "how to use it\n")
    assert ended.value.code == 0 and capsys.readouterr().out == "how to use it\n"
