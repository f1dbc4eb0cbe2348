"""What each switch could bring to a server that was measured, by the table of rules in rules.toml."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shlex import quote
from typing import Literal

from fastsocket.measure.measured import SHORT, Measured

TABLE = Path(__file__).resolve().parent / "rules.toml"
LOCAL = 90  # percent of reads: where more of them are local, little is left to gain
WAITED = 10  # percent of a thread's ready time: where threads wait longer for a CPU, their connections wait, too

Verdict = Literal["try", "no", "on", "unknown"]


@dataclass(frozen=True)
class Rule:
    """A verdict on a switch, with its reason. It counts where the condition holds. source: the page that says so."""

    when: str
    verdict: Verdict
    says: str
    source: str


@dataclass(frozen=True)
class Switch:
    """Something that can be switched on. against: what speaks against the switch when a rule says to try it."""

    name: str
    how: str
    against: str
    against_source: str
    rules: list[Rule]


@dataclass(frozen=True)
class Advice:
    """What the rules say about a switch. how and against are empty unless the verdict is to try the switch."""

    switch: str
    verdict: Verdict
    says: str
    source: str
    how: str
    against: str
    against_source: str


@cache
def switches() -> list[Switch]:
    """All switches with their rules, read from rules.toml."""
    table = tomllib.loads(TABLE.read_text())
    rules = {name: Rule(**words) for name, words in table.pop("rule").items()}
    return [
        Switch(name, **{**words, "rules": [rules[rule] for rule in words["rules"]]}) for name, words in table.items()
    ]


def advice(measured: Measured) -> list[Advice]:
    """The advice on each switch, for a measured server. The last rule of each switch always holds."""
    return [_advice(switch, measured) for switch in switches()]


def _advice(switch: Switch, measured: Measured) -> Advice:
    words = facts(measured)
    rule = next(rule for rule in switch.rules if CONDITIONS[rule.when](measured))
    more = (switch.how.format_map(words), switch.against, switch.against_source) if rule.verdict == "try" else [""] * 3
    return Advice(switch.name, rule.verdict, rule.says.format_map(words), rule.source, *more)


def facts(m: Measured) -> dict[str, str]:
    """The facts about a server that the texts of rules may name in braces."""
    return {
        "pid": str(m.pid),
        "device": quote(m.devices[0].device) if m.devices else "DEVICE",  # quoted, because it is part of a command
        "nics": ", ".join(f"{steering.device} {steering.nic}" for steering in m.devices),
        "port": m.queues[0].address.rpartition(":")[2] if m.queues else "PORT",
        "obstacle": m.library.obstacle,
        "cpus": str(len(m.usable_cpus)),
        "watchers": str(m.watchers),
        "waited": f"{m.waited_percent:.0f}",
        "reads_each": _number(m.passive.reads_each if m.passive else None),
        "first": _number(m.passive.first_local_percent if m.passive else None),
        "passive": _number(m.passive.local_percent if m.passive else None),
        "active": _number(m.active.local_percent if m.active else None),
        "active_each": _number(m.active.reads_each if m.active else None),
        "segments": _number(m.costs.segments if m.costs else None),
    }


def _number(value: float | None) -> str:
    return f"{value:.1f}" if value is not None else "many"


# ---- conditions

Condition = Callable[[Measured], bool]


def _elsewhere(percent: float | None) -> bool:
    """Whether so few reads are local that there is something to gain."""
    return percent is not None and percent < LOCAL


def is_kept_open(m: Measured) -> bool:
    return bool(m.passive and not (m.passive.reads_each and m.passive.reads_each <= SHORT))


def reads_elsewhere(m: Measured) -> bool:
    return bool(m.passive and _elsewhere(m.passive.local_percent))


def gets_answers_elsewhere(m: Measured) -> bool:
    return bool(m.active and _elsewhere(m.active.local_percent))


def reads_first_locally(m: Measured) -> bool:
    return bool(m.passive and not _elsewhere(m.passive.first_local_percent))


def library_is_idle(m: Measured) -> bool:
    """Whether the library, though loaded, does not accelerate the server, or would not if it were loaded."""
    return not m.library.accelerated and (m.library.loaded or reads_first_locally(m))


def keeps_own_open(m: Measured) -> bool:
    return bool(m.active and not (m.active.reads_each and m.active.reads_each <= SHORT))


def has_few_workers(m: Measured) -> bool:
    """Whether the server has fewer workers than CPUs that they may use, and not all workers are pinned to one CPU."""
    pinned = all(worker.may_run_on.isdecimal() for worker in m.workers)
    return bool(m.watchers and m.watchers < len(m.usable_cpus) and not pinned)


def _has_part(name: str) -> Condition:
    return lambda m: name in m.library.parts


CONDITIONS: dict[str, Condition] = {
    "always": lambda m: True,
    "is_idle": lambda m: m.is_idle,
    "is_unreachable": lambda m: bool(m.library.obstacle),
    "is_loaded": lambda m: m.library.loaded,
    "is_accelerated": lambda m: m.library.accelerated,
    "sees_no_reads": lambda m: m.passive is None,
    "sees_no_watchers": lambda m: m.watchers is None,
    "has_one_cpu": lambda m: len(m.usable_cpus) < 2,
    "has_no_device": lambda m: not m.devices,
    "is_steered": lambda m: any(steering.nic != "off" for steering in m.devices),
    "waits_otherwise": lambda m: m.watchers == 0,
    "has_one_acceptor": lambda m: m.watchers == 1,
    "has_no_other_worker": lambda m: (m.watchers or 0) < 2,
    "has_one_reader_elsewhere": lambda m: m.watchers == 1 and reads_elsewhere(m),
    "has_few_workers": has_few_workers,
    "is_kept_open": is_kept_open,
    "reads_elsewhere": reads_elsewhere,
    "reads_first_locally": reads_first_locally,
    "library_is_idle": library_is_idle,
    "keeps_open_and_reads_elsewhere": lambda m: is_kept_open(m) and reads_elsewhere(m),
    "opens_none": lambda m: bool(m.active and not m.active.reads),
    "keeps_own_open": keeps_own_open,
    "gets_answers_elsewhere": gets_answers_elsewhere,
    "gets_answers_here": lambda m: not gets_answers_elsewhere(m),
    "clients_close_first": lambda m: not m.closes_first,
    "waits_for_cpus": lambda m: m.waited_percent >= WAITED,
    "delivers": _has_part("flow_deliver"),
    "answers_with_fin": _has_part("answer_with_fin"),
    "delays_acks": _has_part("delayed_ack"),
    "defers": _has_part("defer_accept"),
    "balances": _has_part("balance"),
}
