"""
Fetches the messages of a session, as a stream or by long polling. If an answer is lost, it asks again.

A part of :mod:`lhttp_tx.client.http.connection`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, final

from twisted.internet.defer import Deferred

from lhttp_tx.client.errors import ConnectFailed
from lhttp_tx.client.http.requests import Answer, Refusal, Requests, judge, pause

__all__ = ["Incoming", "IncomingOwner", "Mode", "Told"]

Mode = Literal["stream", "poll"]

_FIRST_BYTES = 5.0
"""Seconds in which a stream must begin. If a proxy holds it back, it does not begin."""

_SLACK = 10.0
"""Seconds to wait for an answer beyond its usual time."""

_MAX_EMPTY = 3
"""After this number of streams in a row that end without a message, streams do not work."""


@dataclass(frozen=True, slots=True)
class Told:
    """
    The server's settings for a session.

    :ivar wait: the most seconds for which a request waits for messages.
    :ivar timeout: seconds without a fetch after which the session ends.
    :ivar buffer: the most bytes that the server keeps until the client has them.
    """

    wait: float
    timeout: float
    buffer: float


class IncomingOwner(Protocol):
    """The connection, which gets the messages."""

    def begun(self) -> None:
        """Called when the client can receive messages."""

    def received(self, entry: Any) -> None:
        """Called with each entry, a JSON value."""

    def acknowledge(self) -> None:
        """Called when the server should soon be told which entries the client has."""

    def fail(self, why: str) -> None:
        """Called when the server has sent something other than messages. *why* is the reason."""


@final
class Incoming:
    """
    The received entries of one session.

    :ivar over: whether to take no more entries. The owner sets it.
    """

    def __init__(self, owner: IncomingOwner, requests: Requests, mode: Mode, *, reactor: Any, largest: int) -> None:
        """
        :param requests: makes the requests.
        :param mode: how to fetch.
        :param largest: the most bytes of a message.
        """
        self.over = False
        self._owner = owner
        self._requests = requests
        self._mode = mode
        self._reactor = reactor
        self._largest_event = 6 * largest + 1_024
        self._told = Told(0.0, 0.0, 0.0)
        self._headers: Mapping[str, str] = {}
        self._last = self._unacknowledged = 0
        self._rest = b""
        self._has_begun = False

    def told_last(self) -> int:
        """Return the number of the last received entry. The caller tells it to the server now."""
        self._unacknowledged = 0
        return self._last

    async def run(self, told: Told, headers: Mapping[str, str]) -> None:
        """
        Fetch until the session ends.

        :param headers: HTTP headers of the requests.
        :raises Refusal: if the session is over, or streams do not work.
        :raises Exception: if requests have failed for so long that the session must be over.
        """
        self._told, self._headers = told, headers
        if self._mode == "poll":
            self._owner.begun()
        await (self._poll() if self._mode == "poll" else self._stream())

    async def _persist(self, action: Callable[[], Awaitable[None]]) -> None:
        """Repeat *action*. If it fails for so long that the session must have ended, raise its error."""
        heard, failures = self._reactor.seconds(), 0
        while not self.over:
            try:
                await action()
                heard, failures = self._reactor.seconds(), 0
            except Refusal:
                raise
            except Exception:
                if self.over:
                    return
                if self._reactor.seconds() - heard > self._told.timeout:
                    raise
                failures += 1
                await pause(self._reactor, failures)

    async def _poll(self) -> None:
        async def poll() -> None:
            timeout = self._told.wait + _SLACK
            path = f"connect?poll=1&after={self._last}"
            answer = await self._requests.ask("GET", path, headers=self._headers, timeout=timeout)
            judge(answer)
            for entry in json.loads(answer.body)["messages"]:
                self._take(self._last + 1, entry)

        await self._persist(poll)

    async def _stream(self) -> None:
        empty = 0

        async def read() -> None:
            nonlocal empty
            before = self._last
            await self._read_stream()
            empty = 0 if self._last > before else empty + 1
            if empty >= _MAX_EMPTY:
                raise Refusal("streams are cut")
            if empty:
                raise ConnectFailed("the stream has ended")

        await self._persist(read)

    async def _read_stream(self) -> None:
        self._rest = b""

        def receive(data: bytes) -> None:
            self._has_begun = True
            if silence.active():
                silence.reset(self._told.wait + _SLACK)
            self._owner.begun()
            self._take_events(data)

        headers = {**self._headers, "Accept": "text/event-stream"}
        reading: Deferred[Answer]
        silence = self._reactor.callLater(_FIRST_BYTES, lambda: reading.cancel())  # noqa: PLW0108 - made below
        reading = self._requests.ask("GET", f"connect?after={self._last}", headers=headers, receive=receive)
        try:
            judge(await reading)
        except Refusal:
            raise
        except Exception:
            if not self._has_begun:
                raise Refusal("streams are held back") from None
            raise
        finally:
            if silence.active():
                silence.cancel()

    def _take_events(self, data: bytes) -> None:
        *events, self._rest = (self._rest + data).split(b"\n\n")
        if len(self._rest) > self._largest_event:
            self._owner.fail("an event of the stream is too large")
        for event in events:
            if event.startswith(b"id: ") and not self.over:
                number, _, entry = event[4:].partition(b"\ndata: ")
                try:
                    found = int(number), json.loads(entry)
                except ValueError:
                    self._owner.fail("the stream contains something other than messages")
                    return
                self._take(*found)
                self._unacknowledged += len(event)
        if self._unacknowledged > self._told.buffer / 8:
            self._unacknowledged = 0
            self._owner.acknowledge()

    def _take(self, number: int, entry: Any) -> None:
        if self.over or number <= self._last:
            return
        self._last = number
        self._owner.received(entry)
