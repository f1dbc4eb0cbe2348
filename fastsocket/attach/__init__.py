"""fastsocket attach gives each SO_REUSEPORT listener of a running server to the CPU of the worker that watches it.

Nothing is loaded into the server. attach sets SO_INCOMING_CPU on the server's listeners (socket(7); since Linux 6.2,
b261eda84ec1, it decides among SO_REUSEPORT listeners). For that, pidfd_getfd(2) copies a listener's descriptor for a
moment. When the attach ends, it puts every setting back.
"""
