"""fastsocket attach: a running server's SO_REUSEPORT listeners, each given to the CPU of the worker that watches it.

Nothing is loaded into the server. Its listeners get SO_INCOMING_CPU (socket(7); among SO_REUSEPORT listeners Linux 6.2,
b261eda84ec1), through descriptors that pidfd_getfd(2) copies for a moment. All of it is put back at the end.
"""
