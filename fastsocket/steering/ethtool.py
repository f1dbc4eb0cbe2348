"""Steering by a real NIC: filter rules, indirection table, interrupts and XPS, set with ethtool, /proc/irq and sysfs.

Queue i becomes the queue of the plan's i-th CPU. "perfect" adds one filter rule for each value of hash(p), for packets
from ports below 1024 (classification rule 1). All other packets go by RSS, which includes rule 2. Rule 3 needs to know
which ports have a listener, and a NIC cannot know that: an active connection to a port from 1024 on goes by RSS.

Which drivers take rules with a masked port, by their sources in drivers/net/ethernet:
  ixgbe (82599, X520, X540, X550)  yes, but one mask for all rules ("Only one mask supported per port" in
                                   ixgbe_add_ethtool_fdir_entry(), intel/ixgbe/ixgbe_ethtool.c), so no rules for single
                                   ports beside those; IPv4 only (ixgbe_flowspec_to_flow_type())
  txgbe                            the same design (txgbe_add_ethtool_fdir_entry(), wangxun/txgbe/txgbe_ethtool.c)
  mlx5                             yes, any mask, IPv4 and IPv6 (validate_tcpudp4(), mellanox/mlx5/core/en_fs_ethtool.c)
  i40e, ice, iavf                  no: a field counts whole or not at all (i40e_check_fdir_input_set(),
                                   intel/i40e/i40e_ethtool.c, and Documentation/.../ethernet/intel/i40e.rst;
                                   ice_set_fdir_ip4_seg(), intel/ice/ice_ethtool_fdir.c)
Other drivers are asked, and their refusal is shown. No such NIC was at hand: the tests replay what ethtool prints.
"""

import re
from pathlib import Path

from fastsocket.steering import command
from fastsocket.steering.command import Refused
from fastsocket.steering.cpus import cpu_mask, machine_cpus
from fastsocket.steering.device import Device
from fastsocket.steering.interrupts import INTERRUPTS, queue_interrupts
from fastsocket.steering.journal import Journal
from fastsocket.steering.plan import MODES, Mode, Plan
from fastsocket.steering.ports import core_of_port, port_mask
from fastsocket.steering.steps import DeviceId, IndirectionSet, NtupleSet, RuleAdded

WITHOUT_PORT_MASKS = ("i40e", "ice", "iavf")
WITH_ATR = ("ixgbe", "i40e", "txgbe")
NETWORK = Path("/sys/class/net")
ADDED = re.compile(r"Added rule with ID (\d+)")


class Ethtool:
    """Steering by the NIC itself. Filter rules that others have set stay; the driver decides which rules come first."""

    name = "ethtool"
    modes = MODES
    remedy = "use a NIC whose driver takes rules with masked ports: ixgbe, txgbe, mlx5; the emulated NIC needs none"
    needs_privilege = False

    def why_not(self, device: Device | None = None, mode: Mode = "rss") -> str | None:
        """Why the NIC cannot steer in this mode, or None. Without a device: why no NIC here takes filter rules."""
        if device is None:
            reasons = [self.why_not(Device(path.parent.name), "perfect") for path in sorted(NETWORK.glob("*/device"))]
            return None if None in reasons else "; ".join(filter(None, reasons)) or "this machine has no NIC"
        with device.inside():
            return self._why_not(device, mode)

    def _why_not(self, device: Device, mode: Mode) -> str | None:
        if not (device.sysfs / "device").exists():
            return f"{device} is no hardware: ethtool has no receive queues to steer to"
        try:
            driver, ntuple = _driver(device), _ntuple(device)
            _indirection(device)
        except Refused as refusal:
            return str(refusal)
        if mode == "atr" and driver not in WITH_ATR:
            return f"the driver {driver} has no ATR; {', '.join(WITH_ATR)} have"
        if mode == "perfect" and ntuple.endswith("[fixed]"):
            return f"the driver {driver} takes no filter rules (ntuple-filters: {ntuple})"
        if mode == "perfect" and driver in WITHOUT_PORT_MASKS:
            return f"the driver {driver} takes no rules with a masked port"
        return None if queue_interrupts(device) else f"the interrupts of {device}'s queues are not in {INTERRUPTS}"

    def apply(self, device: Device, plan: Plan, journal: Journal) -> None:
        """Switch steering on. Raises Refused with the words of the driver or the kernel, or DeviceError."""
        with device.inside():
            self._queues(device, plan, journal)
            before = _indirection(device)
            command.run(["ethtool", "-X", device.name, "equal", str(len(plan.cpus))])
            journal.note(before)
            if plan.mode != "rss" and (wanted := "on" if plan.mode == "perfect" else "off") != _ntuple(device):
                self._switch_ntuple(device, wanted, journal)
            if plan.mode == "perfect":
                self._rules(device, plan, journal)

    @staticmethod
    def _switch_ntuple(device: Device, wanted: str, journal: Journal) -> None:
        """Switch ntuple-filters on or off. On ixgbe, off switches ATR on.

        Off would also remove filter rules that others have set: then it raises Refused.
        """
        if wanted == "off" and not re.search(r"Total 0 rules", command.run(["ethtool", "-n", device.name])):
            raise Refused(f"{device} has filter rules, which ATR would remove: ethtool -N {device} delete them first")
        before = NtupleSet(DeviceId.of(device), _ntuple(device))
        command.run(["ethtool", "-K", device.name, "ntuple", wanted])
        journal.note(before)

    @staticmethod
    def _queues(device: Device, plan: Plan, journal: Journal) -> None:
        """Give the interrupt and the transmissions of queue i to the plan's i-th CPU. Raises Refused."""
        interrupts, transmit = queue_interrupts(device), len(device.queue_files("xps_cpus"))
        if len(interrupts) < len(plan.cpus):
            raise Refused(
                f"{device} has {len(interrupts)} queues for {len(plan.cpus)} CPUs: "
                f"ethtool -L {device} combined {len(plan.cpus)}, or name fewer with --cpus"
            )
        try:
            for queue, cpu in enumerate(plan.cpus):
                journal.move_interrupt(device, interrupts[queue], cpu)
            for queue, cpu in enumerate(plan.cpus[:transmit]):
                journal.write_queue(device, "xps_cpus", queue, cpu_mask([cpu]))
        except OSError as error:
            raise Refused(f"cannot write {error.filename}: {error.strerror}") from error

    @staticmethod
    def _rules(device: Device, plan: Plan, journal: Journal) -> None:
        """Add the filter rules. IPv4 must get all of its rules; a driver without such rules for IPv6 uses RSS there.

        Raises Refused.
        """
        for rule in rules(plan, "tcp4"):
            _add_rule(device, rule, journal)
        for number, rule in enumerate(rules(plan, "tcp6")):
            try:
                _add_rule(device, rule, journal)
            except Refused:
                if number:
                    raise
                break


def rules(plan: Plan, family: str) -> list[list[str]]:
    """The filter rules of a plan, each as the words after "ethtool -N DEVICE".

    A bit that is set in a mask means that this bit of the port does not matter (ethtool(8), -N).
    """
    mask, queue = port_mask(machine_cpus()), {cpu: str(number) for number, cpu in enumerate(plan.cpus)}
    active = [
        [
            "flow-type",
            family,
            "src-port",
            "0",
            "m",
            "0x3ff",
            "dst-port",
            str(value),
            "m",
            hex(0xFFFF ^ mask),
            "action",
            queue[core_of_port(value)],
        ]
        for value in range(mask + 1)
        if core_of_port(value) in queue
    ]
    single = [["flow-type", family, "dst-port", str(port), "action", queue[cpu]] for port, cpu in plan.ports.items()]
    return active + single


def _add_rule(device: Device, rule: list[str], journal: Journal) -> None:
    said = command.run(["ethtool", "-N", device.name, *rule])
    added = ADDED.search(said)
    if not added:
        raise Refused(f"ethtool -N {device} does not say which rule it added: {said.strip()}")
    journal.note(RuleAdded(DeviceId.of(device), int(added[1])))


def _driver(device: Device) -> str:
    return _value(command.run(["ethtool", "-i", device.name]), "driver")


def _ntuple(device: Device) -> str:
    """The state of ntuple-filters: "on" or "off", with "[fixed]" behind it where the driver cannot change it."""
    return _value(command.run(["ethtool", "-k", device.name]), "ntuple-filters")


def _value(shown: str, key: str) -> str:
    found = re.search(rf"^\s*{key}:\s*(.+?)\s*$", shown, re.MULTILINE)
    if not found:
        raise Refused(f"ethtool shows no {key}")
    return found[1]


def _indirection(device: Device) -> IndirectionSet:
    """The present indirection table, as the step that writes it back.

    Raises Refused when the device has no table, or one that ethtool -X cannot write back.
    """
    shown = command.run(["ethtool", "-x", device.name])
    rings = re.search(r"with (\d+) RX ring", shown)
    entries = [
        int(entry) for row in re.findall(r"^\s*\d+:((?:\s+\d+)+)\s*$", shown, re.MULTILINE) for entry in row.split()
    ]
    if not rings or not entries:
        raise Refused(f"{device} has no indirection table")
    first, count = min(entries), max(entries) - min(entries) + 1
    if entries != [first + number % count for number in range(len(entries))]:
        raise Refused(
            f"the indirection table of {device} was set in a way that ethtool -X cannot write back: "
            f"ethtool -X {device} default"
        )
    is_default = (first, count) == (0, int(rings[1]))
    return IndirectionSet(DeviceId.of(device), first, 0 if is_default else count)
