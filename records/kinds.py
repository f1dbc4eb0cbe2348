"""The kinds of figure. An experiment file names one of them to say how its figure is drawn.

To add a kind, write a file in analysis/figures/ and a line here. docs/adding/figure.md shows how.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """The function that draws figures of one kind."""

    module: str  # in analysis/figures
    function: str = "draw"  # in that module: takes a View, returns the figure and the data that it shows
    timed: bool = True  # whether the figure shows something that depends on time, which an emulated guest cannot tell


KINDS = {
    "throughput": Kind("throughput"),
    "ratios": Kind("ratios"),
    "tail": Kind("tail"),
    "interrupts": Kind("interrupts"),
    "packets": Kind("packets", timed=False),
    "peers": Kind("peers"),
    "locality": Kind("locality", timed=False),
    "contention": Kind("contention"),
    "cpu": Kind("cpu"),
    "day": Kind("day"),
    "effects": Kind("effects"),
    "profile": Kind("profile"),
    "profile-difference": Kind("profile", "draw_difference"),
    "components": Kind("components"),
    "future-work": Kind("components", "draw_future"),
    "pressure": Kind("pressure"),
    "related": Kind("related", timed=False),
    "listen-table": Kind("walk", "draw_passive", timed=False),
    "active-connections": Kind("walk", "draw_active", timed=False),
    "accept-queues": Kind("queues", timed=False),
    "flow-deliver": Kind("walk", "draw_delivery", timed=False),
}
