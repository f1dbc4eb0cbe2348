"""A flame graph (Gregg, "The Flame Graph", CACM 59(6), 2016) in one SVG file that is searched and zoomed offline."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path

from analysis.templates import template
from records.profile import IDLE, Stack

WIDTH, ROW, MARGIN = 1200, 17, 10
NARROWEST = 0.4  # px: a narrower box is not drawn, nor the boxes above it
LETTER = 6.6  # px: about the width of a letter
_TEMPLATE = template(Path(__file__).with_name("flamegraph.svg.j2"))


def flame_graph(stacks: list[Stack], title: str) -> str:
    """The SVG of all samples that were not idle, with the command at the bottom of each stack."""
    root = _tree(stacks)
    boxes = list(_boxes("all", root, root.samples, 0.0, 0))
    return _TEMPLATE.render(
        title=title,
        boxes=boxes,
        samples=root.samples,
        width=WIDTH,
        row=ROW,
        margin=MARGIN,
        height=(root.depth + 1) * ROW + 64,
    )


@dataclass
class _Node:
    """A function with its samples, and the functions that it called."""

    samples: int = 0
    above: "dict[str, _Node]" = field(default_factory=dict)

    def add(self, samples: int, names: list[str]) -> None:
        """Add samples that were taken in the last of these functions; each function called the next one."""
        self.samples += samples
        if names:
            self.above.setdefault(names[0], _Node()).add(samples, names[1:])

    @property
    def depth(self) -> int:
        return 1 + max((node.depth for node in self.above.values()), default=0)


def _tree(stacks: list[Stack]) -> _Node:
    root = _Node()
    for stack in stacks:
        if stack.role != IDLE:
            root.add(stack.samples, [stack.command, *stack.frames.split(";")])
    return root


def _boxes(name: str, node: _Node, total: int, left: float, level: int) -> Iterator[tuple[object, ...]]:
    """The boxes of a node and of the nodes above it, neighbours in alphabetical order.

    Each is a tuple of x and width in px, level, colour, name, samples, percentage, and the part of the name that fits.
    """
    width = (WIDTH - 2 * MARGIN) * node.samples / max(total, 1)
    if width < NARROWEST:
        return
    letters = int(width / LETTER)
    shown = name if len(name) <= letters else f"{name[: letters - 1]}…" if letters > 2 else ""
    percent = f"{100 * node.samples / max(total, 1):.2f}"
    yield f"{MARGIN + left:.1f}", f"{width:.1f}", level, _colour(name), name, node.samples, percent, shown
    for above in sorted(node.above):
        yield from _boxes(above, node.above[above], total, left, level + 1)
        left += (WIDTH - 2 * MARGIN) * node.above[above].samples / max(total, 1)


def _colour(name: str) -> str:
    """A warm colour, the same for a name in every graph."""
    number = int.from_bytes(md5(name.encode(), usedforsecurity=False).digest()[:2])
    return f"hsl({20 + number % 35} {70 + number // 35 % 20}% {62 + number // 700 % 14}%)"
