"""The library's files stand on one another: none calls a file above it, and none is long."""

import subprocess
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from fastsocket.build import HERE

LIBRARY_SOURCES = HERE / "libfsocket"
MOST_LINES = 400


def without_circle(graph: dict[str, set[str]]) -> list[str]:
    """The names from the bottom up. Raises AssertionError with the circle, if there is one."""
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(f"a circle: {' is used by '.join(error.args[1])}") from None


def symbols(compiled: Path, *which: str) -> set[str]:
    listed = subprocess.run(["nm", "--format=posix", *which, compiled], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in listed.stdout.splitlines()}


def uses(compiled: list[Path]) -> dict[str, set[str]]:
    """For each file the files that define what it calls or reads."""
    home = {name: file.stem for file in compiled for name in symbols(file, "--extern-only", "--defined-only")}
    return {file.stem: {home[name] for name in symbols(file, "--undefined-only") if name in home} for file in compiled}


def compile_into(directory: Path, *sources: Path) -> list[Path]:
    subprocess.run(["gcc", "-std=gnu11", "-O1", "-fPIC", "-c", *sources], cwd=directory, check=True)
    return sorted(directory.glob("*.o"))


def includes(header: Path) -> set[str]:
    lines = [line.split('"') for line in header.read_text().splitlines() if line.startswith('#include "')]
    return {name for _, name, *_ in lines}


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> dict[str, set[str]]:
    return uses(compile_into(tmp_path_factory.mktemp("library"), *LIBRARY_SOURCES.glob("*.c")))


@pytest.mark.needs("gcc")
def test_no_file_calls_one_that_calls_it(library):
    assert set(without_circle(library)) == {source.stem for source in LIBRARY_SOURCES.glob("*.c")}
    assert "real" in library["accept"]


@pytest.mark.needs("gcc")
def test_a_circle_of_calls_is_found(tmp_path):
    (tmp_path / "above.c").write_text("void below(void); void above(void) { below(); }")
    (tmp_path / "below.c").write_text("void above(void); void below(void) { above(); }")
    compiled = compile_into(tmp_path, tmp_path / "above.c", tmp_path / "below.c")
    with pytest.raises(AssertionError, match=r"above is used by below|below is used by above"):
        without_circle(uses(compiled))


@pytest.mark.needs("gcc")
def test_the_guide_lists_the_files_in_their_order(library):
    guide = [line.split()[1] for line in (LIBRARY_SOURCES / "common.h").read_text().splitlines() if ".c  " in line]
    place = {name.removesuffix(".c"): index for index, name in enumerate(guide)}
    top = {name for name in library if name.startswith("preload")}
    assert set(library) - top == set(place) - {"preload*"}
    assert [(name, one) for name in set(library) - top for one in library[name] if place[one] > place[name]] == []


def test_no_header_includes_one_that_includes_it():
    graph = {header.name: includes(header) for header in LIBRARY_SOURCES.glob("*.h")}
    assert "descriptors.h" in graph["tables.h"]
    without_circle(graph)


@pytest.mark.parametrize("folder", ["libfsocket", "bpf", "cost"])
def test_no_c_file_is_long(folder):
    files = [file for file in (HERE / folder).iterdir() if file.suffix in (".c", ".h", ".def")]
    assert files
    assert {file.name for file in files if len(file.read_text().splitlines()) > MOST_LINES} == set()
