"""What eBPF shows of a server: which core reads and accepts, and where locks are waited for."""
