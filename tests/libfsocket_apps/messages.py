"""sendmmsg(2) and recvmmsg(2), which Python has no names for: with data, or with a descriptor."""

import ctypes
import socket
import struct

LIBC = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [("header", Header), ("length", ctypes.c_uint)]


CONTROL = struct.Struct("@Nii")  # struct cmsghdr: length, level, type


def _message(control, content: bytes = b"x") -> tuple[Message, list]:
    """And what must live as long as the message."""
    data = ctypes.create_string_buffer(content, len(content))
    iov = Iovec(ctypes.addressof(data), len(content))
    header = Header(iov=ctypes.pointer(iov), iov_length=1)
    if control is not None:
        header.control, header.control_length = ctypes.addressof(control), len(control)
    return Message(header), [data, iov, control]


def send_data(descriptor: int, contents: list[bytes]) -> int:
    """In a message each; how many were sent."""
    made = [_message(None, content) for content in contents]
    return LIBC.sendmmsg(descriptor, (Message * len(made))(*[message for message, _ in made]), len(made), 0)


def send(unix: int, descriptor: int) -> int:
    control = ctypes.create_string_buffer(
        CONTROL.pack(CONTROL.size + 4, socket.SOL_SOCKET, socket.SCM_RIGHTS) + struct.pack("@i4x", descriptor), 24
    )
    (plain, _kept), (passing, _kept_too) = _message(None), _message(control)
    return LIBC.sendmmsg(unix, (Message * 2)(plain, passing), 2, 0)


def receive(unix: int) -> int:
    """The descriptor that one of two messages brings."""
    controls = [ctypes.create_string_buffer(24) for _ in range(2)]
    made = [_message(control) for control in controls]
    messages = (Message * 2)(*[message for message, _ in made])
    received = 0
    while received < 2:  # a message may be on its way
        received += LIBC.recvmmsg(unix, ctypes.byref(messages[received]), 2 - received, 0, None)
    (with_it,) = [control for control, message in zip(controls, messages) if message.header.control_length]
    return struct.unpack_from("@i", with_it.raw, CONTROL.size)[0]
