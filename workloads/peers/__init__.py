"""Servers to measure beside, which lab.py installs when they are asked for: setup/peers.py."""
