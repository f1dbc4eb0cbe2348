"""What libfsocket.so adds to a libc call on a descriptor that it does not care for."""
