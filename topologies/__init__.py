"""Networks to measure in: Mininet topologies that only describe, and the testbed that realises them."""
