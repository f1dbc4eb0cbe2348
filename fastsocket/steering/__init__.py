"""Steering decides on which CPU a packet is handled. There is one interface, and one file for each way to steer.

emulated  an emulated multi-queue NIC on veth links of which we have both ends
ethtool   a real NIC's own filter rules, indirection table and interrupts
cpumap    XDP on the receiving device
rfs       the kernel's Receive Flow Steering
"""

from fastsocket.steering.backends import BACKENDS, Backend, able, steer
from fastsocket.steering.command import Refused
from fastsocket.steering.device import Device, DeviceError
from fastsocket.steering.emulated import EmulatedNic, Link
from fastsocket.steering.plan import MODES, Mode, Plan, PlanError
from fastsocket.steering.ports import core_of_port

__all__ = [
    "BACKENDS",
    "MODES",
    "Backend",
    "Device",
    "DeviceError",
    "EmulatedNic",
    "Link",
    "Mode",
    "Plan",
    "PlanError",
    "Refused",
    "able",
    "core_of_port",
    "steer",
]
