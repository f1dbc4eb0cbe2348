"""Networks to measure in: Mininet topologies describe them, and the testbed makes them."""
