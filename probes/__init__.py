"""What BPF programs measure of a server: which core reads and accepts, how many locks are waited for, system calls."""
