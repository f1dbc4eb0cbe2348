"""What keeps clients away from a listener, by name: each is a function of a socket that is to listen, or listens."""

import ctypes
import fcntl
import os
import signal
import socket
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
BPF_PROG_LOAD, BPF_PROG_TYPE_SOCKET_FILTER = 5, 1
SO_ATTACH_FILTER, SO_ATTACH_BPF = 26, 50
TCP_MD5SIG, KEY_BYTES = 14, 80
SO_BINDTOIFINDEX = 62
MOVE_0, EXIT = struct.pack("=BBhi", 0xB7, 0, 0, 0), struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = 0; exit: keep 0 bytes
signals = []


def sign_with_md5(listener: socket.socket) -> None:
    """RFC 2385: for peers at 127.0.0.1. tcp(7), struct tcp_md5sig."""
    peer = struct.pack("@HH4s120x", socket.AF_INET, 0, socket.inet_aton("127.0.0.1"))
    listener.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, peer + struct.pack("=BBHi80s", 0, 0, 6, 0, b"secret"))


def drop_by_classic_filter(listener: socket.socket) -> None:
    program = ctypes.create_string_buffer(struct.pack("@HBBI", 0x06, 0, 0, 0))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program)))


def drop_by_ebpf(listener: socket.socket) -> None:
    program, licence = ctypes.create_string_buffer(MOVE_0 + EXIT, 16), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQ", BPF_PROG_TYPE_SOCKET_FILTER, 2, ctypes.addressof(program), ctypes.addressof(licence)
    )
    memory = ctypes.create_string_buffer(attributes, 128)
    descriptor = LIBC.syscall(SYS_BPF, BPF_PROG_LOAD, memory, len(memory))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, descriptor)
    os.close(descriptor)


def bind_to_device(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"elsewhere\0")


def bind_to_device_by_number(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, socket.if_nametoindex("elsewhere"))


def ask_for_signals(listener: socket.socket) -> None:
    """No guard, but what tells the application of each connection."""
    signal.signal(signal.SIGIO, lambda *_: signals.append(1))
    fcntl.fcntl(listener, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(listener, fcntl.F_SETFL, fcntl.fcntl(listener, fcntl.F_GETFL) | os.O_ASYNC)


GUARDS = {
    "TCP-MD5": sign_with_md5,
    "classic filter": drop_by_classic_filter,
    "eBPF filter": drop_by_ebpf,
    "SO_BINDTODEVICE": bind_to_device,
    "SO_BINDTOIFINDEX": bind_to_device_by_number,
    "O_ASYNC": ask_for_signals,
}
