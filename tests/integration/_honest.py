"""
An honest client beside an attack, in a process of its own, so that the attacker's work is not in its figures.

It publishes numbered messages at a fixed rate to a channel that it is subscribed to, and looks at the server's memory
all the while. :class:`HonestClient` starts it; :class:`Figures` is what it has seen.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from integration._server import PING, PONG, TEXT, TIME_LIMIT, RawClient, ServerProcess, client_frame, message

__all__ = ["Figures", "FrameReader", "HonestClient", "percentile", "resident_size"]

RATE = 100
"""Messages a second."""

_LOOK = 0.02
"""Seconds between two looks at the server's memory."""

_LAST_WAIT = 20.0
"""Seconds that the last messages may take to arrive."""

_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


def resident_size(pid: int) -> int:
    """Return the bytes of memory that a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_SIZE


def waited(pid: int) -> float:
    """Return the seconds in which a process could have run, but others had the processors; 0 if that is not known."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0


def percentile(values: list[float], share: float) -> float:
    """Return the value that *share* of *values* do not pass; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass(frozen=True)
class Figures:
    """
    What an honest client has seen.

    :ivar sent: messages published.
    :ivar lost: messages published that did not arrive.
    :ivar strange: messages that arrived twice, out of order, or not as they were sent.
    :ivar median: seconds that half of the messages took, from when they were due; less those in which the machine
        gave the server no turn, as what else it runs, the attacker too, is no matter of the server's.
    :ivar p99: seconds that 99 of 100 took at most.
    :ivar growth: bytes by which the server's memory passed its size at the beginning, at most.
    """

    sent: int
    lost: int
    strange: int
    median: float
    p99: float
    growth: int

    def __str__(self) -> str:
        return (
            f"{self.sent} sent, {self.lost} lost, {self.strange} strange, median {1000 * self.median:.1f} ms, "
            f"p99 {1000 * self.p99:.1f} ms, memory +{self.growth / 2**20:.1f} MiB"
        )


class FrameReader:
    """Takes whole frames of a server out of the bytes that came in."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Add *data*; return opcode and payload of each frame that is whole."""
        held = self._data
        held += data
        frames = []
        position = 0
        while len(held) - position >= 2:
            size, begin = held[position + 1], position + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                if len(held) - begin < width:
                    break
                size, begin = int.from_bytes(held[begin : begin + width], "big"), begin + width
            if len(held) - begin < size:
                break
            frames.append((held[position] & 0x0F, bytes(held[begin : begin + size])))
            position = begin + size
        del held[:position]
        return frames


class HonestClient:
    """
    The client as a process; it works inside the ``with`` block.

    :ivar figures: what it has seen, after the block.
    """

    figures: Figures

    def __init__(self, server: ServerProcess, rate: int = RATE) -> None:
        tests = str(Path(__file__).parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "integration._honest", str(server.port), str(server.pid), str(rate)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> HonestClient:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        output, _nothing = self._process.communicate(timeout=TIME_LIMIT)
        assert self._process.returncode == 0, "the honest client was disturbed; see its traceback"
        self.figures = Figures(**json.loads(output))


class _Client:
    def __init__(self, port: int, pid: int, rate: int) -> None:
        self._pid = pid
        self._step = 1 / rate
        self._channel = f"honest.{os.getpid()}"
        self._publisher, self._subscriber = RawClient(port), RawClient(port)
        self._subscriber.subscribe(self._channel)
        self._readers = {client: FrameReader() for client in (self._publisher, self._subscriber)}
        self._size = self._peak = resident_size(pid)
        self._due: list[float] = []
        self._begun: list[float] = []
        self._latencies: list[float] = []
        self._strange = 0

    def run(self) -> Figures:
        """Work until standard input ends."""
        print("ready", flush=True)
        with selectors.DefaultSelector() as selector:
            for client in self._readers:
                client.sock.setblocking(False)
                selector.register(client.sock, selectors.EVENT_READ, client)
            selector.register(sys.stdin, selectors.EVENT_READ)
            begin = look = time.monotonic()
            end = None
            while end is None or (len(self._latencies) < len(self._due) and time.monotonic() < end):
                now = time.monotonic()
                if end is None and now >= begin + len(self._due) * self._step:
                    self._publish(begin + len(self._due) * self._step)
                if now >= look:
                    self._peak = max(self._peak, resident_size(self._pid))
                    look = now + _LOOK
                now = time.monotonic()
                wait = min(look, begin + len(self._due) * self._step if end is None else look) - now
                ready = selector.select(max(0.0, wait))
                if not ready:
                    # It was woken late by the machine: no fault of the server.
                    begin += max(0.0, time.monotonic() - now - max(0.0, wait))
                for key, _ in ready:
                    if isinstance(key.data, RawClient):
                        self._read(key.data)
                    else:
                        selector.unregister(sys.stdin)
                        end = time.monotonic() + _LAST_WAIT
        return Figures(
            sent=len(self._due),
            lost=len(self._due) - len(self._latencies),
            strange=self._strange,
            median=percentile(self._latencies, 0.5),
            p99=percentile(self._latencies, 0.99),
            growth=self._peak - self._size,
        )

    def _text(self, number: int) -> bytes:
        return message("chat", {"publish": self._channel}, str(number)).encode("ascii")

    def _publish(self, due: float) -> None:
        """Publish the next message; time counts from when it was due, so that a server that hangs does not hide."""
        self._begun.append(waited(self._pid))
        self._write(self._publisher, client_frame(self._text(len(self._due))))
        self._due.append(due)

    def _write(self, client: RawClient, data: bytes) -> None:
        client.sock.settimeout(TIME_LIMIT)
        client.sock.sendall(data)
        client.sock.setblocking(False)

    def _read(self, client: RawClient) -> None:
        data = client.sock.recv(262_144)
        if not data:
            raise ConnectionError("the server has hung up on an honest client")
        for opcode, payload in self._readers[client].feed(data):
            if opcode == PING:
                self._write(client, client_frame(payload, PONG))
            elif (opcode, payload) == (TEXT, self._text(len(self._latencies))):
                number = len(self._latencies)
                paused = waited(self._pid) - self._begun[number]
                self._latencies.append(max(0.0, time.monotonic() - self._due[number] - paused))
            else:
                self._strange += 1


def _main(arguments: list[str]) -> None:
    port, pid, rate = map(int, arguments)
    with suppress(PermissionError):
        os.nice(-10)  # how long it waits for the machine is not to be measured
    figures: dict[str, Any] = asdict(_Client(port, pid, rate).run())
    print(json.dumps(figures))


if __name__ == "__main__":
    _main(sys.argv[1:])
