"""A flame graph (Gregg, "The Flame Graph", CACM 59(6), 2016) in one SVG file that can be searched and zoomed offline."""

from hashlib import md5
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from records.profile import IDLE, Stack

WIDTH, ROW, MARGIN = 1200, 17, 10
NARROWEST = 0.4  # px: what would be narrower is not drawn, nor what stands on it
LETTER = 6.6  # px, about, of the font
_TEMPLATE = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
).get_template("flamegraph.svg.j2")


def flame_graph(stacks: list[Stack], title: str) -> str:
    """The SVG of all samples that were not idle, with the command at the bottom of each stack."""
    root = _tree(stacks)
    depth = _depth(root)
    boxes = list(_boxes("all", root, root["samples"], 0.0, 0))
    return _TEMPLATE.render(
        title=title,
        boxes=boxes,
        samples=root["samples"],
        width=WIDTH,
        row=ROW,
        margin=MARGIN,
        height=(depth + 1) * ROW + 64,
    )


def _tree(stacks: list[Stack]) -> dict:
    root = {"samples": 0, "above": {}}
    for stack in stacks:
        if stack.role == IDLE:
            continue
        root["samples"] += stack.samples
        node = root
        for name in (stack.command, *stack.frames.split(";")):
            node = node["above"].setdefault(name, {"samples": 0, "above": {}})
            node["samples"] += stack.samples
    return root


def _depth(node: dict) -> int:
    return 1 + max(map(_depth, node["above"].values()), default=0)


def _boxes(name: str, node: dict, total: int, left: float, level: int):
    """Lists of x and width in px, level, colour, name, samples and percentage; neighbours in alphabetical order."""
    width = (WIDTH - 2 * MARGIN) * node["samples"] / max(total, 1)
    if width < NARROWEST:
        return
    letters = int(width / LETTER)
    shown = name if len(name) <= letters else f"{name[: letters - 1]}…" if letters > 2 else ""
    yield (
        f"{MARGIN + left:.1f}",
        f"{width:.1f}",
        level,
        _colour(name),
        name,
        node["samples"],
        f"{100 * node['samples'] / max(total, 1):.2f}",
        shown,
    )
    for above in sorted(node["above"]):
        yield from _boxes(above, node["above"][above], total, left, level + 1)
        left += (WIDTH - 2 * MARGIN) * node["above"][above]["samples"] / max(total, 1)


def _colour(name: str) -> str:
    """Warm, and the same for a name in every graph."""
    number = int.from_bytes(md5(name.encode(), usedforsecurity=False).digest()[:2])
    return f"hsl({20 + number % 35} {70 + number // 35 % 20}% {62 + number // 700 % 14}%)"
