"""The surroundings of a server: the library in its processes, and the steering of its network devices."""

from contextlib import nullcontext
from pathlib import Path

from fastsocket.binary import NoSuchProgram, Unreadable, check
from fastsocket.build import GlibcTooOld, NotBuilt, built_library
from fastsocket.counters import COUNTERS
from fastsocket.libbpf import BpfError
from fastsocket.measure.measured import Library, Missing, Steering
from fastsocket.measure.namespace import devices_of
from fastsocket.printable import printable
from fastsocket.shared_memory import CpuCounters, Listener, NotPreloaded, OtherVersion, SharedMemory
from fastsocket.steering import Device, DeviceError, Refused, lasting
from fastsocket.steering.device import NamespaceError, network_inode, sysfs_of
from fastsocket.steering.journal import JournalError


def library_in(processes: list[int]) -> Library:
    """What the library does in a server.

    One process is enough to tell: the first process that listened shares its memory with its descendants.
    """
    for pid in processes:
        try:
            with SharedMemory(pid) as memory:
                return _library(list(memory.listeners()), memory.counters())
        except OtherVersion:
            return Library(True, "", False, [])
        except (NotPreloaded, OSError):
            continue
    return Library(False, _obstacle(processes[0]), False, [])


def _library(listeners: list[Listener], counters: list[CpuCounters]) -> Library:
    parts = {part.component for part in COUNTERS if any(getattr(cpu, part.name) for cpu in counters)}
    parts |= {"balance"} if any(listener.balance == "on" for listener in listeners) else set()
    return Library(True, "", any(map(_is_accelerated, listeners)), sorted(parts))


def _is_accelerated(listener: Listener) -> bool:
    return not listener.why_not and any(clone.listening for clone in listener.cpus)


def _obstacle(pid: int) -> str:
    try:
        verdict = check(Path(f"/proc/{pid}/exe"), built_library(), notes=False)  # works in any mount namespace
    except (NoSuchProgram, Unreadable, NotBuilt, GlibcTooOld, OSError):
        return ""
    return printable(verdict.obstacles[0].reason) if verdict.obstacles else ""


def steering_of(process: int, missing: list[Missing]) -> list[Steering]:
    """The steering of each device in the network namespace of a process. What could not be read goes to ``missing``."""
    found, untold = [], {}
    is_ours = network_inode("self") == network_inode(process)
    for name in devices_of(process):
        try:
            with nullcontext() if is_ours else sysfs_of(process) as mounted:
                found.append(_steering(Device(name, None if is_ours else process, mounted)))
        except (DeviceError, NamespaceError, Refused, JournalError, BpfError, OSError) as reason:
            untold[printable(name)] = printable(str(reason))
    for why in dict.fromkeys(untold.values()):
        names = ", ".join(name for name, reason in untold.items() if reason == why)
        missing.append(Missing(f"steering of {names}", why, "run it as root"))
    return found


def _steering(device: Device) -> Steering:
    queues = device.queue_files("rps_cpus")
    return Steering(
        printable(device.name),
        len(queues),
        any(queue.read_text().strip("0,\n") for queue in queues),
        any(queue.read_text().strip() != "0" for queue in device.queue_files("rps_flow_cnt")),
        str(lasting.described(device)["mode"]),
    )
