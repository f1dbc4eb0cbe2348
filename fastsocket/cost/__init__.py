"""What libfsocket.so costs: nanoseconds that it adds to the calls that it replaces."""
