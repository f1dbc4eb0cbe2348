"""The interrupts of a NIC's receive queues."""

import re
from pathlib import Path

from fastsocket.steering.device import Device

INTERRUPTS, IRQ = Path("/proc/interrupts"), Path("/proc/irq")
NUMBER = re.compile(r"(\d+)(?:@.*)?$")
TRANSMITS = re.compile(r"[-.](tx|output)[-.]?\d+(?:@.*)?$", re.IGNORECASE)  # it must not match "TxRx"


def interrupts_of(device: Device) -> set[int]:
    """The numbers of all interrupts of a device. For a virtio device these are the interrupts of its PCI function."""
    own = device.sysfs / "device/msi_irqs"
    place = own if own.exists() else device.sysfs / "device/../msi_irqs"
    return {int(entry.name) for entry in place.glob("*")}


def queue_interrupts(device: Device) -> list[int]:
    """The interrupt of each receive queue of a device, in the queues' order.

    The interrupt's name ends in the queue's number, as in eth0-TxRx-3, mlx5_comp3@pci:0000:01:00.0 or virtio2-input.3.
    """
    ours = interrupts_of(device)
    named = re.findall(r"^\s*(\d+):.*\s(\S+)$", INTERRUPTS.read_text(), re.MULTILINE)
    numbered = [
        (NUMBER.search(name), int(number))
        for number, name in named
        if int(number) in ours and not TRANSMITS.search(name)
    ]
    return [
        number
        for found, number in sorted(
            ((found, number) for found, number in numbered if found), key=lambda pair: int(pair[0][1])
        )
    ]


def affinity(interrupt: int) -> Path:
    """The file that lists the CPUs that may get an interrupt."""
    return IRQ / str(interrupt) / "smp_affinity_list"
