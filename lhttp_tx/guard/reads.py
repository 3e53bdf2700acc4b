"""
Controls how much the server reads from a client at a time: less if the client's bytes are expensive to handle.

Used by the modules that read from a socket: :mod:`lhttp_tx.transports.websocket.connection` and
:mod:`lhttp_tx.web.channel`. One turn of the reactor handles all data of one read, and the other clients wait for it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.protocols.policies import ProtocolWrapper

__all__ = ["LEAST_READ", "TURN", "begin_reading", "pace"]

_FIRST_READ, LEAST_READ, _LARGEST_READ = 8_192, 512, 65_536
"""Bytes of a read: the first size, the smallest, and the largest, which is Twisted's."""

TURN = 0.005
"""
Seconds that the messages of one read may take in one turn of the reactor. The rest waits for the next turn, and the
next reads from that client are smaller. A message can be so small that one read contains ten thousand.
"""


def begin_reading(transport: Any) -> FileDescriptor | None:
    """
    Read little at first from an unknown client.

    :returns: the transport that buffers the bytes, below TLS and other wrappers; ``None`` if it is not known.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    if not isinstance(transport, FileDescriptor):
        return None
    transport.bufferSize = _FIRST_READ
    return transport


def pace(bottom: FileDescriptor | None, size: int, elapsed: float) -> None:
    """
    Read less at a time from a client whose bytes are expensive to handle, and more if they are cheap.

    A read full of empty pings takes a hundred times longer than one of publications. In smaller reads, it does not
    delay the other clients.

    :param bottom: the result of :func:`begin_reading`.
    :param size: bytes of the last read.
    :param elapsed: seconds of this thread's processor time (``time.thread_time``) that it took to handle them. Other
        programs on a busy machine do not count: with small reads, the server would only need more time.
    """
    if bottom is None:
        return
    if elapsed > TURN:
        bottom.bufferSize = max(LEAST_READ, min(bottom.bufferSize // 2, int(size * TURN / elapsed)))
    elif size >= bottom.bufferSize and elapsed < TURN / 4:
        bottom.bufferSize = min(_LARGEST_READ, 4 * bottom.bufferSize)
