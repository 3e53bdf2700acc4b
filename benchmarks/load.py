"""
The load: raw sockets that do not block, bytes built beforehand, and counting.

It runs in a process of its own and must cost less than the server that it measures: one ``recv_into`` for each event,
no frame looked at, nothing kept. What it costs is measured and reported beside the server's CPU time.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.wire import PayloadMeter, handshake

__all__ = [
    "Lost",
    "Outcome",
    "Readers",
    "burst",
    "close_all",
    "exchange",
    "open_connections",
    "open_streams",
    "paced",
    "request",
    "rush",
    "trips",
]

PATIENCE = 10.0
"""Seconds without a byte after which what is missing counts as lost."""

_AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_RESET = struct.pack("ii", 1, 0)
_PIECE = 262_144
_WINDOW = 32
"""Connections that are being opened at one time."""


class Lost(Exception):
    """Not everything that was sent came back."""


@dataclass(slots=True)
class Outcome:
    """
    What one turn of load saw.

    :ivar messages: how many came back.
    :ivar seconds: from the first byte out to the last byte in.
    :ivar latencies: seconds from sending a message to its arrival, for each one that was timed.
    """

    messages: int
    seconds: float
    latencies: list[float] = field(default_factory=list)


def open_connections(
    port: int, count: int, path: str = "/", tls: ssl.SSLContext | None = None, subprotocol: str = ""
) -> list[socket.socket]:
    """
    Open *count* WebSockets, up to 32 at one time, and return them once every handshake is answered.

    What the server says behind its answer is thrown away.
    """
    if tls is not None:
        return [_open_tls(port, path, tls) for _ in range(count)]
    request_bytes = handshake(path, subprotocol)
    poller = select.epoll()
    pending: dict[int, tuple[socket.socket, bytes]] = {}
    ready: list[socket.socket] = []
    started = 0
    while len(ready) < count:
        while started < count and len(pending) < _WINDOW:
            sock = socket.socket()
            sock.setblocking(False)
            code = sock.connect_ex(("127.0.0.1", port))
            if code not in (0, errno.EINPROGRESS):
                raise Lost(f"connecting failed: {errno.errorcode.get(code, code)}")
            poller.register(sock, _OUT)
            pending[sock.fileno()] = (sock, b"")
            started += 1
        events = poller.poll(PATIENCE)
        if not events:
            raise Lost(f"{count - len(ready)} of {count} handshakes were not answered")
        for number, event in events:
            sock, seen = pending[number]
            if event & _OUT:
                sock.send(request_bytes)
                poller.modify(number, _IN)
                continue
            data = sock.recv(4096)
            seen += data
            if b"\r\n\r\n" not in seen:
                if not data:
                    raise Lost("a connection was closed in its handshake")
                pending[number] = (sock, seen)
                continue
            if not seen.startswith(b"HTTP/1.1 101"):
                raise Lost(f"a handshake was refused: {seen[:60]!r}")
            poller.unregister(number)
            del pending[number]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready.append(sock)
    poller.close()
    return ready


def open_streams(port: int, count: int) -> list[socket.socket]:
    """Open *count* connections that begin with nothing."""
    made = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        made.append(sock)
    return made


def _open_tls(port: int, path: str, context: ssl.SSLContext) -> socket.socket:
    sock: socket.socket = context.wrap_socket(
        socket.create_connection(("127.0.0.1", port), PATIENCE), server_hostname="127.0.0.1"
    )
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(handshake(path))
    seen = b""
    while b"\r\n\r\n" not in seen:
        seen += sock.recv(4096)
    if not seen.startswith(b"HTTP/1.1 101"):
        raise Lost(f"a handshake was refused: {seen[:60]!r}")
    sock.setblocking(False)
    return sock


def close_all(connections: Iterable[socket.socket], *, reset: bool = False) -> None:
    """Close; with *reset* so that no port stays taken for a while, as thousands would."""
    for sock in connections:
        with contextlib.suppress(OSError):
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()


def request(connections: Sequence[socket.socket], messages: Sequence[bytes], answer: bytes) -> None:
    """Send to each connection its message, and return when *answer* has come on every one."""
    poller = select.epoll()
    waiting: dict[int, tuple[socket.socket, bytes]] = {}
    for sock, message in zip(connections, messages, strict=True):
        _send_all(sock, message)
        waiting[sock.fileno()] = (sock, b"")
        poller.register(sock, _IN)
    while waiting:
        events = poller.poll(PATIENCE)
        if not events:
            raise Lost(f"{len(waiting)} of {len(connections)} connections got no {answer!r}")
        for number, _ in events:
            sock, seen = waiting[number]
            try:
                data = sock.recv(65_536)
            except _AGAIN:
                continue
            if not data:
                raise Lost("the server closed a connection")
            if answer in seen + data:
                poller.unregister(number)
                del waiting[number]
            else:
                waiting[number] = (sock, (seen + data)[-4096:])
    poller.close()


def _send_all(sock: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view[:_PIECE]) :]
        except _AGAIN:
            select.select([sock], [sock], [], PATIENCE)


class Readers:
    """Connections that only count what comes."""

    def __init__(self, connections: Sequence[socket.socket], *, framed: bool = False, separator: int = 0) -> None:
        """
        :param framed: count payload bytes instead of bytes on the wire.
        :param separator: bytes between two messages of one frame, counted at the end of each frame, too.
        """
        self.count = len(connections)
        self.tls = bool(connections) and isinstance(connections[0], ssl.SSLSocket)
        self.poller = select.epoll()
        self.sockets = {sock.fileno(): sock for sock in connections}
        self.meters = {number: PayloadMeter(separator) for number in self.sockets} if framed else None
        self.buffer = bytearray(1 << 20)
        self._view = memoryview(self.buffer)
        for number in self.sockets:
            self.poller.register(number, _IN)

    def take(self, number: int) -> int:
        """Return how many bytes came on the connection *number*; 0 if it was woken for nothing."""
        try:
            size = self.sockets[number].recv_into(self.buffer)
        except _AGAIN:
            return 0
        if not size:
            raise Lost("the server closed a connection")
        if self.tls:
            with contextlib.suppress(*_AGAIN):
                while more := self.sockets[number].recv_into(self.buffer):
                    size += more
        return size if self.meters is None else self.meters[number].feed(self._view[:size])

    def drain(self) -> None:
        """Throw away what has come by now."""
        while events := self.poller.poll(0):
            for number, _ in events:
                self.take(number)

    def close(self) -> None:
        """Let go of the connections; whoever opened them closes them."""
        self.poller.close()


def burst(readers: Readers, writer: socket.socket, data: bytes, publications: int, expected: int) -> Outcome:
    """
    Send *data* as fast as the server takes it, and return when every reader has got *expected* bytes.

    What the server answers to the publisher is read, as a client would, and thrown away.

    :param publications: how many are in *data*.
    """
    view, position, size = memoryview(data), 0, len(data)
    counts = dict.fromkeys(readers.sockets, 0)
    left = expected * readers.count
    poller, take, out = readers.poller, readers.take, writer.fileno()
    if out in counts:
        raise ValueError("the writer reads, too")
    poller.register(out, _IN | _OUT)
    start = time.perf_counter()
    while left > 0:
        events = poller.poll(PATIENCE)
        if not events:
            raise Lost(f"{left} of {expected * readers.count} bytes did not come")
        for number, event in events:
            if number == out:
                if event & ~(_IN | _OUT):
                    raise Lost("the server closed the publisher's connection")
                with contextlib.suppress(*_AGAIN):
                    if event & _IN and not writer.recv_into(readers.buffer):
                        raise Lost("the server closed the publisher's connection")
                with contextlib.suppress(*_AGAIN):
                    if event & _OUT:
                        position += writer.send(view[position : position + _PIECE])
                if event & _OUT and position == size:
                    poller.modify(out, _IN)
            else:
                count = take(number)
                counts[number] += count
                left -= count
    seconds = time.perf_counter() - start
    poller.unregister(out)
    if any(count != expected for count in counts.values()):
        raise Lost("some readers got more than others")
    return Outcome(publications * readers.count, seconds)


def rush(readers: Readers, writers: Sequence[socket.socket], data: bytes, publications: int, expected: int) -> Outcome:
    """
    Send *data* on each of *writers* in one piece, and return when every reader has got *expected* bytes.

    :param publications: how many are in *data*, which fits into a socket's buffer.
    """
    counts = dict.fromkeys(readers.sockets, 0)
    left = expected * readers.count
    poller, take = readers.poller, readers.take
    start = time.perf_counter()
    for writer in writers:
        _send_all(writer, data)
    while left > 0:
        events = poller.poll(PATIENCE)
        if not events:
            raise Lost(f"{left} of {expected * readers.count} bytes did not come")
        for number, _ in events:
            count = take(number)
            counts[number] += count
            left -= count
    seconds = time.perf_counter() - start
    for writer in writers:
        with contextlib.suppress(*_AGAIN):
            while writer.recv_into(readers.buffer):
                pass
    if any(count != expected for count in counts.values()):
        raise Lost("some readers got more than others")
    return Outcome(publications * len(writers) * readers.count, seconds)


def trips(readers: Readers, writer: socket.socket, sent: Sequence[bytes], size: int) -> Outcome:
    """
    Send one message after another, each when the only reader has got what the one before brought.

    :param writer: may be the reader itself.
    :param size: bytes that each message brings.
    """
    (number,) = readers.sockets
    poller, take, clock = readers.poller, readers.take, time.perf_counter
    latencies: list[float] = []
    start = clock()
    for data in sent:
        begun, left = clock(), size
        _send_all(writer, data)
        while left > 0:
            if not poller.poll(PATIENCE):
                raise Lost(f"{left} bytes did not come")
            left -= take(number)
        if left < 0:
            raise Lost("more came than was sent")
        latencies.append(clock() - begun)
    return Outcome(len(sent), clock() - start, latencies)


def paced(readers: Readers, writer: socket.socket, data: bytes, size: int, rate: float, publications: int) -> Outcome:
    """
    Publish *data* again and again at *rate* a second, and time each delivery.

    :param size: bytes of one delivery.
    """
    counts = dict.fromkeys(readers.sockets, 0)
    left = size * publications * readers.count
    sent: list[float] = []
    latencies: list[float] = []
    poller, take, clock = readers.poller, readers.take, time.perf_counter
    start = clock() + 0.01
    while left > 0:
        now, published = clock(), len(sent)
        if published < publications and now >= start + published / rate:
            sent.append(now)
            if writer.send(data) != len(data):
                raise Lost("the server does not read what is published")
            published += 1
        timeout = PATIENCE if published == publications else max(0.0, start + published / rate - clock())
        events = poller.poll(timeout, readers.count)
        if not events and published == publications:
            raise Lost(f"{left} bytes did not come")
        for number, _ in events:
            before = counts[number]
            count = take(number)
            now = clock()
            counts[number] = after = before + count
            left -= count
            latencies.extend(now - when for when in sent[before // size : after // size])
    return Outcome(publications * readers.count, clock() - start, latencies)


def exchange(readers: Readers, data: bytes, answer_size: int, messages: int, turns: int) -> Outcome:
    """
    Send *data* on every connection, again as soon as its answer is complete, *turns* times in all.

    :param answer_size: bytes of the answer to *data*.
    :param messages: how many are in *data*; one: the round trips are timed.
    """
    counts = dict.fromkeys(readers.sockets, 0)
    begun: dict[int, float] = {}
    latencies: list[float] = []
    poller, take, clock = readers.poller, readers.take, time.perf_counter
    left = answer_size * turns
    to_begin = turns
    start = clock()
    for number, sock in readers.sockets.items():
        if to_begin:
            to_begin -= 1
            begun[number] = clock()
            _send_all(sock, data)
    while left > 0:
        events = poller.poll(PATIENCE)
        if not events:
            raise Lost(f"{left} bytes did not come")
        for number, _ in events:
            count = take(number)
            left -= count
            count += counts[number]
            if count < answer_size:
                counts[number] = count
                continue
            counts[number] = 0
            if count > answer_size:
                raise Lost("more came back than was sent")
            now = clock()
            if messages == 1:
                latencies.append(now - begun[number])
            if to_begin:
                to_begin -= 1
                begun[number] = now
                _send_all(readers.sockets[number], data)
    return Outcome(messages * turns, clock() - start, latencies)
