"""Whose the results are that root makes."""

import os

import pytest

from setup.ownership import owned_like_its_folder

OWNER, OTHER = 12345, 54321

pytestmark = pytest.mark.privileged


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "theirs"
    made.mkdir()
    os.chown(made, OWNER, OWNER)
    return made


def owners(*paths) -> list[tuple[int, int]]:
    return [(path.lstat().st_uid, path.lstat().st_gid) for path in paths]


def test_a_new_directory_and_all_that_is_made_in_it(folder):
    run = folder / "a" / "b"
    with owned_like_its_folder(run):
        (run / "figures").mkdir(parents=True)
        (run / "figures" / "one.svg").touch()
    assert owners(folder / "a", run, run / "figures", run / "figures" / "one.svg") == [(OWNER, OWNER)] * 4


def test_a_directory_that_was_there_has_its_own_owner(folder):
    os.chown(folder, OTHER, OTHER)
    with owned_like_its_folder(folder):
        (folder / "report.html").touch()
    assert owners(folder / "report.html") == [(OTHER, OTHER)]


def test_what_is_somebody_elses_stays_theirs_and_links_are_not_followed(folder, tmp_path):
    roots, others = tmp_path / "roots", folder / "others"
    roots.touch()
    others.touch()
    os.chown(others, OTHER, OTHER)
    with owned_like_its_folder(folder):
        (folder / "link").symlink_to(roots)
    assert owners(roots, others, folder / "link") == [(0, 0), (OTHER, OTHER), (OWNER, OWNER)]


def test_also_when_it_is_interrupted_or_nothing_is_made(folder):
    def interrupted():
        (folder / "run").mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), owned_like_its_folder(folder / "run"):
        interrupted()
    with owned_like_its_folder(folder / "never"):
        pass
    assert owners(folder / "run") == [(OWNER, OWNER)]
    assert not (folder / "never").exists()


def test_a_folder_of_root_stays_roots(tmp_path):
    with owned_like_its_folder(tmp_path / "run"):
        (tmp_path / "run").mkdir()
    assert owners(tmp_path / "run") == [(0, os.getgid())]
