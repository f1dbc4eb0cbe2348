"""Draws the pictures of README.md and architecture.md from the code and from the reference run: python3 docs/draw.py

Standard library only, and no dates or random names in the files: the same sources give the same bytes, which
tests/test_docs.py compares with what is committed.
"""

import ast
import csv
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
LIBRARY = ROOT / "fastsocket" / "libfsocket"
SUMMARY = ROOT / "results" / "reference" / "scalability" / "summary.csv"

Graph = dict[str, set[str]]  # who uses whom

FONT = "font-family='system-ui, sans-serif' font-size='13'"
LETTER = 7.3  # pixels, about, of that font
PITCH = 68  # pixels from row to row
TIP = (
    "<defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
    "<path d='M0 0 L8 4 L0 8 z' fill='#9ab'/></marker></defs>"
)


def pictures() -> dict[str, str]:
    """Each picture's file name in docs/, and what is in it."""
    return {
        "results.svg": results(),
        "packages.svg": layers(imports(), "imports"),
        "libfsocket.svg": layers(calls(), "calls"),
    }


# ---- what the code says ----------------------------------------------------------------------------------------------


def imports() -> Graph:
    """The top-level packages and lab.py, and which of the others each of them imports somewhere."""
    rooms = {"lab.py": [ROOT / "lab.py"]}
    for found in sorted(ROOT.glob("*/__init__.py")):
        if found.parent.name != "tests":
            rooms[found.parent.name] = sorted(found.parent.rglob("*.py"))
    return {
        room: {name for file in files for name in _imported(file) if name in rooms and name != room}
        for room, files in rooms.items()
    }


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def calls() -> Graph:
    """The C files of the library, and in which of the others are the functions that each of them calls.

    preload*.c define libc's own names: a call to one of those elsewhere means libc's.
    """
    sources = {file.name: _without_comments(file.read_text()) for file in sorted(LIBRARY.rglob("*.c"))}
    defined = re.compile(r"^(?!static|typedef|#)[a-z][\w \t*]*?\b(\w+)\([^;{}]*\)\n\{", re.MULTILINE)
    home = {
        name: file for file, text in sources.items() if not file.startswith("preload") for name in defined.findall(text)
    }
    used = re.compile(r"(?<![\w.>])(\w+)\(")
    return {
        file: {home[name] for name in used.findall(text) if name in home and home[name] != file}
        for file, text in sources.items()
    }


def _without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)


# ---- a graph in layers -----------------------------------------------------------------------------------------------


def layers(graph: Graph, verb: str) -> str:
    """Boxes in rows, each of which uses boxes of lower rows only; what use each other share a box."""
    grouped = condensed(graph)
    rows = _rows(grouped)
    widths = [[LETTER * len(name) + 20 for name in row] for row in rows]
    width = max(600, *(sum(sizes) + 24 * (len(sizes) + 1) for sizes in widths))
    place = {}
    for number, (row, sizes) in enumerate(zip(rows, widths)):
        gap = (width - sum(sizes)) / (len(row) + 1)
        left = gap
        for name, size in zip(row, sizes):
            place[name] = left, number * PITCH + 10, size
            left += size + gap
    bottom = (len(rows) - 1) * PITCH + 38
    drawn = [_arrow(place[name], place[other]) for name in place for other in sorted(_direct(grouped, name))]
    drawn += [_box(name, *where) for name, where in place.items()]
    caption = f"Each box {verb} only boxes of the rows below it; an arrow that others imply is left out."
    drawn.append(f"<text x='{width / 2:.0f}' y='{bottom + 30:.0f}' text-anchor='middle' fill='#555'>{caption}</text>")
    return _svg(width, bottom + 42, drawn)


def condensed(graph: Graph) -> Graph:
    """The graph with each knot, of nodes that reach each other, as one node."""
    reach = {name: _reached(graph, name) for name in graph}
    knot = {name: " ⇄ ".join(sorted({name, *(o for o in reach[name] if name in reach[o])})) for name in graph}
    return {
        knot[name]: {knot[other] for member in knot[name].split(" ⇄ ") for other in graph[member]} - {knot[name]}
        for name in graph
    }


def _reached(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        if (name := ahead.pop()) not in found:
            found.add(name)
            ahead += graph[name]
    return found


def _rows(graph: Graph) -> list[list[str]]:
    """The top row first. A node is one row above the highest that it uses."""
    level: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        level[name] = 1 + max((level[other] for other in graph[name]), default=-1)
    return [sorted(name for name in level if level[name] == row) for row in range(max(level.values()), -1, -1)]


def _direct(graph: Graph, name: str) -> set[str]:
    """Those that it uses, without those that another of them reaches (the transitive reduction)."""
    return {other for other in graph[name] if not any(other in _reached(graph, by) for by in graph[name])}


def _box(name: str, x: float, y: float, size: float) -> str:
    return (
        f"<rect x='{x:.0f}' y='{y:.0f}' width='{size:.0f}' height='28' rx='4' fill='#eef3fa' stroke='#4a6fa5'/>"
        f"<text x='{x + size / 2:.0f}' y='{y + 18:.0f}' text-anchor='middle'>{escape(name)}</text>"
    )


def _arrow(above: tuple[float, float, float], below: tuple[float, float, float]) -> str:
    x, y, to_x, to_y = above[0] + above[2] / 2, above[1] + 28, below[0] + below[2] / 2, below[1]
    middle = (y + to_y) / 2
    return (
        f"<path d='M{x:.0f} {y:.0f} C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y - 2:.0f}' "
        "fill='none' stroke='#9ab' marker-end='url(#tip)'/>"
    )


# ---- the reference run -----------------------------------------------------------------------------------------------

SERVERS = {"nginx": "cps", "haproxy": "cps", "redis": "rps"}
NAMES = {"nginx": "nginx, connections/s", "haproxy": "HAProxy, connections/s", "redis": "Redis, requests/s"}
ARMS = {
    "fastsocket": ("with Fastsocket", "#0b6e4f"),
    "latest": ("with its own SO_REUSEPORT", "#b5651d"),
    "control": ("A/A control", "#777"),
}


def ratios() -> dict[tuple[str, str], tuple[float, float, float]]:
    """Server and arm, and the ratio of its throughput to base's at 2 cores, with its interval."""
    with SUMMARY.open() as file:
        return {
            (row["workload"], row["variant"]): tuple(float(row[f"ratio_{name}"]) for name in ("to_base", "low", "high"))
            for row in csv.DictReader(file)
            if row["cores"] == "2" and row["metric"] == SERVERS[row["workload"]] and row["variant"] in ARMS
        }


def results() -> str:
    """A line for each server and arm: the ratio as a dot, its interval as a bar."""
    drawn, y = [], 34
    for tick in (0.9, 1.0, 1.1, 1.2):
        weight = "1.5' stroke-dasharray='4 3" if tick == 1 else "0.5"
        drawn.append(f"<path d='M{_x(tick):.0f} 18 V270' stroke='#aaa' stroke-width='{weight}'/>")
        drawn.append(f"<text x='{_x(tick):.0f}' y='288' text-anchor='middle' fill='#555'>{tick:.1f}</text>")
    found = ratios()
    for server, name in NAMES.items():
        drawn.append(f"<text x='12' y='{y}' font-weight='600'>{name}</text>")
        for arm, (label, colour) in ARMS.items():
            if (server, arm) in found:
                drawn.append(_interval(y, label, colour, *found[server, arm]))
                y += 24
        y += 20
    caption = "ratio to the same server with one shared listener; 2 cores, 10 blocks, bars are 95 % intervals"
    drawn.append(f"<text x='380' y='310' text-anchor='middle' fill='#555'>{caption}</text>")
    return _svg(760, 322, drawn)


def _x(ratio: float) -> float:
    return 390 + (ratio - 0.9) * 900


def _interval(y: float, label: str, colour: str, ratio: float, low: float, high: float) -> str:
    return (
        f"<text x='370' y='{y}' text-anchor='end' fill='{colour}'>{label}</text>"
        f"<path d='M{_x(low):.1f} {y - 5} H{_x(high):.1f}' stroke='{colour}' stroke-width='3'/>"
        f"<circle cx='{_x(ratio):.1f}' cy='{y - 5}' r='5' fill='{colour}'/>"
        f"<text x='{_x(high) + 8:.0f}' y='{y}' fill='{colour}'>{ratio:.3f}</text>"
    )


def _svg(width: float, height: float, drawn: list[str]) -> str:
    size = f"viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' height='{height:.0f}'"
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' {size} {FONT}>",
            TIP,
            "<rect width='100%' height='100%' fill='white'/>",
            *drawn,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    for picture, drawing in pictures().items():
        (DOCS / picture).write_text(drawing)
        print(DOCS / picture)
