"""
What an attack costs a server: seconds of its processor for a megabyte sent, beside an ordinary publication, and memory.

The ordinary publications are made in the same run, against the same server, and are as large as what the attacker
sends; each has one subscriber. What the server spends on an honest client meanwhile is taken off.
"""

from __future__ import annotations

import re
import resource
import select
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration._honest import FrameReader, waited
from integration._server import CLOSE, PING, PONG, TIME_LIMIT, RawClient, ServerProcess, client_frame, message

__all__ = [
    "BEHAVED",
    "CLUSTERED",
    "CLUSTERED_CHANNEL",
    "CONNECTION",
    "LIMIT",
    "Attacker",
    "Cost",
    "Sent",
    "Watch",
    "allow_files",
    "ordinary",
    "processor_time",
]

LIMIT = 50.0
"""Ordinary publications of its size that anything a client sends may cost."""

_HOW_TO = Path(__file__).parents[2] / "docs" / "howto" / "production.rst"
_TEXT = re.sub(r"\s+", " ", _HOW_TO.read_text(encoding="utf-8"))
_FIGURES = re.search(
    r"(\d+\.\d+) MiB with the defaults\b.* A well-behaved client uses about (\d+) KiB\. .*"
    r"In a cluster, add (\d+) KiB for each channel .* (\d+\.\d+) MiB for a client that changes all",
    _TEXT,
)
assert _FIGURES is not None, f"{_HOW_TO} does not say how much one client can hold"

CONNECTION = int(float(_FIGURES[1]) * 2**20)
"""Bytes that one connection may hold, as the how-to says."""

BEHAVED = int(_FIGURES[2]) * 1024
"""Bytes that one connection holds which behaves, as the how-to says."""

CLUSTERED_CHANNEL = int(_FIGURES[3]) * 1024
"""Bytes that a channel of one connection takes in a cluster, as the how-to says: the NATS client has queues for it."""

CLUSTERED = int(float(_FIGURES[4]) * 2**20)
"""Bytes that one connection may hold in a cluster beside these, as the how-to says."""

_REST = 0.3
"""Seconds for which the server is looked at while only the honest client is there."""

_ENOUGH = 0.2
"""Seconds of the server's processor that ordinary publications must have taken to be a measure."""

_PATIENCE = 10.0
"""Seconds that this may take, where the server slows clients down."""

_SMALLEST = 48
"""Bytes of the smallest ordinary publication, with its frame."""


def processor_time(pid: int) -> float:
    """Return the seconds for which a process has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def allow_files(count: int) -> None:
    """Let this process, and those that it starts, have *count* open files; skip the test if it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"{count} open files are needed, {hard} are allowed")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


@dataclass(frozen=True)
class Sent:
    """
    What an attacker has sent.

    :ivar size: bytes.
    :ivar units: messages, frames, requests or handshakes.
    :ivar connections: how many connections hold what the server holds for them.
    :ivar batch: how many units came at once.
    """

    size: int
    units: int
    connections: int = 1
    batch: int = 10


@dataclass(frozen=True)
class Cost:
    """
    What it has cost.

    :ivar sent: what was sent.
    :ivar seconds: seconds of the server's processor.
    :ivar usual: seconds that ordinary publications cost, as many and as large.
    :ivar held: bytes by which the server has grown, for each of the attacker's connections.
    """

    sent: Sent
    seconds: float
    usual: float
    held: float

    @property
    def price(self) -> float:
        """How many ordinary publications of its size one unit costs."""
        return self.seconds / max(self.usual, 1e-9)

    def check(self, held: float = CONNECTION) -> None:
        """Fail if it is too dear."""
        assert self.price <= LIMIT, self
        assert self.held <= held, self

    def __str__(self) -> str:
        megabytes = self.sent.size / 1e6
        return (
            f"{megabytes:.2f} MB in {self.sent.units} pieces: {self.seconds / megabytes:.3f} s of CPU for a MB "
            f"(ordinary ones of that size {self.usual / megabytes:.3f}: {self.price:.1f} times), "
            f"memory +{self.held / 1024:.0f} KiB for each of {self.sent.connections} connections"
        )


class Attacker:
    """
    A WebSocket client that sends what it likes, reads what comes, and comes back when it is thrown out.

    :ivar closed: how often it was thrown out.
    :ivar received: bytes that have come.
    """

    def __init__(self, port: int, *, path: str = "/") -> None:
        self.closed = 0
        self.received = 0
        self._port = port
        self._path = path
        self._client = RawClient(port, path)
        self._reader = FrameReader()
        self._marks = 0

    def send(self, *payloads: bytes) -> Sent:
        """Send each as a text message, and return when the server has handled them, or has thrown it out."""
        return self.send_frames([client_frame(payload) for payload in payloads])

    def send_frames(self, frames: list[bytes]) -> Sent:
        """Send frames, and return when the server has handled them, or has thrown it out."""
        self._marks += 1
        mark = b"%d" % self._marks
        data = memoryview(b"".join([*frames, client_frame(mark, PING)]))
        sent = Sent(len(data), len(frames), 1, len(frames))
        sock = self._client.sock
        sock.setblocking(False)
        poll = select.poll()  # there may be more files than select() takes
        poll.register(sock)
        end = time.monotonic() + TIME_LIMIT
        try:
            while True:
                assert time.monotonic() < end, "the server does not get on"
                poll.modify(sock, select.POLLIN | (select.POLLOUT if data else 0))
                ready = sum(events for _, events in poll.poll(1_000))
                if ready & select.POLLOUT:
                    with suppress(BlockingIOError):
                        data = data[sock.send(data) :]
                if ready & ~select.POLLOUT and self._read(mark):
                    return sent
        except ConnectionError:
            self.closed += 1
            self.close()
            self._client, self._reader = RawClient(self._port, self._path), FrameReader()
            return sent

    def _read(self, mark: bytes) -> bool:
        data = self._client.sock.recv(262_144)
        if not data:
            raise ConnectionError("the server has hung up")
        self.received += len(data)
        for opcode, payload in self._reader.feed(data):
            if opcode == CLOSE:
                raise ConnectionError("the server closes")
            if (opcode, payload) == (PONG, mark):
                return True
        return False

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def __enter__(self) -> Attacker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ordinary(server: ServerProcess, size: int, batch: int) -> float:
    """Return the seconds that an ordinary publication costs: *size* bytes, one subscriber, *batch* of them at once."""
    text = message("chat", {"publish": "ordinary"}).encode("ascii")
    payload = text + b"x" * (max(size, _SMALLEST) - len(text) - 8)
    count, spent, end = 0, 0.0, time.monotonic() + _PATIENCE
    rest = _rest(server)
    with Attacker(server.port) as publisher, RawClient(server.port) as subscriber:
        subscriber.subscribe("ordinary")
        while not count or (spent < _ENOUGH and time.monotonic() < end):
            begin, began = processor_time(server.pid), time.monotonic()
            for _ in range(20):
                publisher.send(*[payload] * batch)
                for _ in range(batch):
                    subscriber.receive()
            count += 20 * batch
            spent += max(0.0, processor_time(server.pid) - begin - rest * (time.monotonic() - began))
    return spent / count


def _rest(server: ServerProcess) -> float:
    """Return the share of a processor that the server takes while nobody but the honest client is there."""
    begin, began = processor_time(server.pid), time.monotonic()
    time.sleep(_REST)
    return (processor_time(server.pid) - begin) / (time.monotonic() - began)


class Watch:
    """What the server has spent since; :meth:`cost` says how it compares."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._rest = _rest(server)
        self._size = server.resident_size()
        self._peak = self._size
        self._begin, self._began = processor_time(server.pid), time.monotonic()

    def look(self) -> None:
        """Look at the memory."""
        self._peak = max(self._peak, self._server.resident_size())

    def held(self) -> int:
        """Return the bytes by which the server has grown, at most."""
        return self._peak - self._size

    def cost(self, sent: Sent) -> Cost:
        """Return what *sent* has cost, once the server is done with it."""
        self.look()
        settle(self._server)
        self.look()
        spent = processor_time(self._server.pid) - self._begin
        seconds = max(0.0, spent - self._rest * (time.monotonic() - self._began))
        usual = sent.units * ordinary(self._server, sent.size // sent.units, sent.batch)
        return Cost(sent, seconds, usual, (self._peak - self._size) / sent.connections)


def summed(parts: list[Sent], connections: int = 1) -> Sent:
    """Return what several were together."""
    sizes, units = sum(part.size for part in parts), sum(part.units for part in parts)
    return Sent(sizes, units, connections, min(10, max(1, units // len(parts))))


def settle(server: ServerProcess) -> None:
    """Return when the server has little left to do; waiting for a processor is work, too."""
    end = time.monotonic() + TIME_LIMIT
    quiet = 0
    while quiet < 3 and time.monotonic() < end:
        begin, began = processor_time(server.pid) + waited(server.pid), time.monotonic()
        time.sleep(0.1)
        busy = processor_time(server.pid) + waited(server.pid) - begin
        quiet = quiet + 1 if busy < 0.5 * (time.monotonic() - began) else 0
