"""Fastsocket for unmodified Linux: libfsocket.so (preloaded) and eBPF packet steering."""
