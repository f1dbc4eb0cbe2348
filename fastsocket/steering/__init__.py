"""Steering: on which CPU a packet is handled. One interface, several ways to do it, one file for each."""

from fastsocket.steering.device import Device
from fastsocket.steering.emulated import EmulatedNic, Link
from fastsocket.steering.plan import MODES, Mode, Plan, PlanError

__all__ = ["MODES", "Device", "EmulatedNic", "Link", "Mode", "Plan", "PlanError"]
