"""Peers: further servers to measure, which lab.py installs only when they are asked for (setup/peers.py)."""
