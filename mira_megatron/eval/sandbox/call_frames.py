"""Messages between a call's driver and its child, inside the sandbox: a length, then the bytes."""

from __future__ import annotations

import socket
import struct
import time

_LENGTH = struct.Struct(">I")


class ChannelClosed(Exception):
    """The other side has ended or sent what is no message."""


def send(channel: socket.socket, message: bytes) -> None:
    """Sends one message; raises ChannelClosed where nobody reads it, TimeoutError at a timeout."""
    try:
        channel.sendall(_LENGTH.pack(len(message)) + message)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ChannelClosed from error


def receive(channel: socket.socket, most_bytes: int, deadline: float | None = None) -> bytes:
    """Returns the next message.

    `deadline` is a time of time.monotonic(), after which TimeoutError is raised. Raises
    ChannelClosed at the end, or where a message is announced with more than `most_bytes`.
    """
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size, deadline))
    if length > most_bytes:
        raise ChannelClosed
    return _exactly(channel, length, deadline)


def _exactly(channel: socket.socket, num_bytes: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < num_bytes:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            channel.settimeout(left)
        try:
            chunk = channel.recv(min(num_bytes - len(parts), 1 << 16))
        except ConnectionResetError as error:
            raise ChannelClosed from error
        if not chunk:
            raise ChannelClosed
        parts += chunk
    return bytes(parts)
