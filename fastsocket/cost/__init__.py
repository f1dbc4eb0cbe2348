"""Measure what libfsocket.so costs: the nanoseconds that it adds to the calls that it replaces."""
