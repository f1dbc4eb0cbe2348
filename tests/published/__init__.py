"""Test suites that others wrote, run without and with libfsocket.so: the library must add no failure to them."""
