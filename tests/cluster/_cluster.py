"""What the tests of a cluster share: a publisher that accounts for every publication, and a subscriber that counts."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from integration._server import TEXT, RawClient, ServerProcess, message, wait_until
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

__all__ = ["PATIENCE", "UNKNOWN", "Account", "Publisher", "Subscriber", "accepted_after", "join", "pause", "until"]

_TOKENS = 1_000
"""Different receipts that a publisher asks for; the server remembers what to do with each head for a while."""

UNKNOWN = "the bus has not confirmed the publication: it is not known whether it arrived"
"""Why a publication is refused that may have arrived all the same."""

PATIENCE = 30.0
"""Seconds that the last answer and the last publication may take."""


def join(server: ServerProcess, count: int = 1) -> ServerProcess:
    """Return *server* once it has said *count* times that it is connected to NATS."""
    server.wait_for_log("connected to NATS", count)
    return server


def pause(seconds: float) -> Deferred[None]:
    """Let the reactor of this process do its work for so long."""
    from twisted.internet import reactor

    return deferLater(reactor, seconds)


async def until(condition: Callable[[], Any], limit: float = PATIENCE) -> None:
    """Let it work until *condition* holds; it must within *limit* seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"not within {limit:g} seconds"
        await pause(0.005)


@dataclass(frozen=True, slots=True)
class Account:
    """
    What has become of numbered publications.

    :ivar accepted: when each that was accepted was answered, by its number.
    :ivar refused: when each that was refused was answered, and how, by its number.
    :ivar unanswered: how many have no answer.
    :ivar received: the numbers that have arrived, in their sequence.
    """

    accepted: dict[int, float]
    refused: dict[int, tuple[float, str]]
    unanswered: int
    received: list[int]

    @property
    def lost(self) -> list[int]:
        """What was accepted and has not arrived."""
        return sorted(set(self.accepted) - set(self.received))

    @property
    def invented(self) -> list[int]:
        """What was refused and has arrived, though nobody was told that it might."""
        refused = {number for number, (_, reason) in self.refused.items() if reason != f"503 {UNKNOWN}"}
        return sorted(refused & set(self.received))

    @property
    def twice(self) -> list[int]:
        """What has arrived more than once."""
        return sorted({number for number in self.received if self.received.count(number) > 1}) if self._repeats else []

    @property
    def _repeats(self) -> bool:
        return len(set(self.received)) < len(self.received)

    @property
    def in_order(self) -> bool:
        """Whether each arrived behind those that were sent before it."""
        return self.received == sorted(self.received)

    def __str__(self) -> str:
        return (
            f"{len(self.accepted)} accepted, {len(self.refused)} refused, {self.unanswered} unanswered, "
            f"{len(self.received)} received, lost: {self.lost[:20]} ({len(self.lost)}), twice: {self.twice[:20]}, "
            f"in order: {self.in_order}"
        )


class _Reader:
    """A client whose messages are read by a thread of its own."""

    def __init__(self, port: int) -> None:
        self.client = RawClient(port)
        self.client.sock.settimeout(None)
        self.ended: Exception | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        try:
            while True:
                opcode, payload = self.client.receive(pings=True)  # another thread sends
                if opcode == TEXT:
                    self.take(time.monotonic(), payload)
        except (OSError, ValueError, AssertionError) as error:
            self.ended = error

    def take(self, now: float, payload: bytes) -> None:
        """Take a message."""
        raise NotImplementedError

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self.client.sock.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Subscriber(_Reader):
    """
    A subscriber of one channel.

    :ivar received: when each publication arrived, and its number.
    """

    def __init__(self, port: int, channel: str) -> None:
        super().__init__(port)
        self.received: list[tuple[float, int]] = []
        self.client.subscribe(channel)
        self._thread.start()

    def take(self, now: float, payload: bytes) -> None:
        self.received.append((now, int(payload[payload.rfind(b"\r\n\r\n") + 4 :][:8])))


class Publisher(_Reader):
    """
    Publishes numbers to one channel at a steady rate, and asks for a receipt for each.

    :ivar accepted: see :class:`Account`.
    :ivar refused: see :class:`Account`.
    :ivar sent: when each was sent.
    :ivar slowest: the longest time that an answer took.
    """

    def __init__(self, port: int, channel: str, rate: int = 1_000, padding: int = 0) -> None:
        """:param padding: bytes that each publication has behind its number."""
        super().__init__(port)
        self.accepted: dict[int, float] = {}
        self.refused: dict[int, tuple[float, str]] = {}
        self.slowest = 0.0
        self._channel, self._rate, self._padding = channel, rate, "x" * padding
        self.sent: list[float] = []
        self._stop = threading.Event()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        self._sender.start()

    def _send(self) -> None:
        start = time.monotonic()
        while not self._stop.is_set():
            due = int((time.monotonic() - start) * self._rate)
            while len(self.sent) < due:
                number = len(self.sent)
                self.sent.append(time.monotonic())
                body = f"{number:08}{self._padding}"
                self.client.send(message("count", {"publish": self._channel, "receipt": str(number % _TOKENS)}, body))
            time.sleep(0.001)

    def take(self, now: float, payload: bytes) -> None:
        lines = payload.decode().split("\r\n")
        fields = dict(line.split(":", 1) for line in lines[1:] if ":" in line)
        number = self.answered  # answers come in the order of what they answer
        assert int(fields["receipt-id"]) == number % _TOKENS
        self.slowest = max(self.slowest, now - self.sent[number])
        if lines[0].endswith(" receipt"):
            self.accepted[number] = now
        else:
            self.refused[number] = (now, f"{fields['status']} {fields['reason']}")

    @property
    def answered(self) -> int:
        """How many have an answer."""
        return len(self.accepted) + len(self.refused)

    def stop(self) -> None:
        """Publish no more, and wait for all answers."""
        self._stop.set()
        self._sender.join(PATIENCE)
        wait_until(lambda: self.answered >= len(self.sent) or self.ended, "all answers", PATIENCE)

    def finish(self, subscriber: Subscriber) -> Account:
        """Stop, and return what has become of the publications once all answers and the last one are there."""
        self.stop()
        last = max(self.accepted)
        wait_until(lambda: subscriber.received and subscriber.received[-1][1] >= last, "the last one", PATIENCE)
        time.sleep(0.2)  # for what would come twice
        received = [number for _, number in subscriber.received]
        return Account(self.accepted, self.refused, len(self.sent) - self.answered, received)

    def close(self) -> None:
        self._stop.set()
        super().close()
        self._sender.join(PATIENCE)


def accepted_after(publisher: Publisher, moment: float, seconds: float = PATIENCE) -> float:
    """Return when the first publication that was accepted after *moment* was."""
    wait_until(lambda: any(when > moment for when in tuple(publisher.accepted.values())), "it publishes", seconds)
    return min(when for when in tuple(publisher.accepted.values()) if when > moment)
