"""
``lhttp subscribe --sse``: reads an event stream, ``GET /events``, instead of a WebSocket.

It uses only the standard library for the network. Used by :mod:`lhttp_tx.client.command.subscribe`.
"""

from __future__ import annotations

import http.client
import math
import random
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final
from urllib.parse import urlencode, urlsplit

from lhttp_tx.client.command.text import message_json, one_line, say, write_line
from lhttp_tx.client.errors import ConnectFailed, ReplyError
from lhttp_tx.codec.json_view import decode_json
from lhttp_tx.codec.limits import UNLIMITED
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.errors import RemoteProtocolError

__all__ = ["listen"]

_MAX_LINE = 16_777_216
"""The most bytes of a line. A longer one ends the connection."""

_SILENCE = 90.0
"""Seconds without a byte after which the connection counts as lost. A server sends comments more often."""

_WAITS = (0.5, 30.0)
"""The shortest and the longest wait before another attempt, in seconds."""


class _TimeIsUp(Exception):
    """Raised when the time of the command is over."""


@final
class _Stream:
    """
    The event stream of a URL, over several connections.

    :ivar wait: seconds to wait before the next attempt.
    """

    def __init__(self, url: str, headers: dict[str, str], ca_file: Path | None, deadline: float) -> None:
        self._parts = urlsplit(url)
        self._headers = headers
        self._tls = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        self._deadline = deadline
        self._last = ""
        self.wait = _WAITS[0]

    def events(self, query: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        """
        Connect, and yield the name and the data of each event, until the connection ends.

        :param query: the query of the URL.
        :raises OSError: if the connection fails.
        :raises ReplyError: if the server answers with a status other than 200.
        """
        secure = self._parts.scheme in ("wss", "https")
        host, port = self._parts.hostname or "", self._parts.port
        connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(host, port, timeout=self._left(10.0), context=self._tls)
            if secure
            else http.client.HTTPConnection(host, port, timeout=self._left(10.0))
        )
        try:
            headers = {**self._headers, "Accept": "text/event-stream"}
            if self._last:
                headers["Last-Event-ID"] = self._last
            connection.request("GET", "/events?" + urlencode(query, doseq=True), headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                reason = response.read(1_000).decode("utf-8", "replace").strip() or response.reason
                raise ReplyError(f"the server refuses the stream: {reason[:200]}", status=response.status)
            self.wait = _WAITS[0]
            yield from self._read(connection, response)
        except http.client.HTTPException as error:
            raise ConnectionError(f"no event stream: {error!r}"[:200]) from None
        finally:
            connection.close()

    def _read(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> Iterator[tuple[str, bytes]]:
        name, data, last = "", [], None
        while True:
            if connection.sock is not None:
                connection.sock.settimeout(self._left(_SILENCE))
            line = response.readline(_MAX_LINE)
            if not line.endswith(b"\n"):
                return  # the end, or a line that is too long
            field, _, value = line.rstrip(b"\r\n").partition(b":")
            value = value.removeprefix(b" ")
            if field == b"id":
                last = value.decode("utf-8", "replace")
            elif field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"data":
                data.append(value)
            elif field == b"retry" and value.isdigit() and len(value) < 8:
                self.wait = min(int(value) / 1_000, _WAITS[1])
            elif not field and not value and line in (b"\n", b"\r\n"):
                self._last = self._last if last is None else last
                if data:
                    yield name, b"\n".join(data)
                name, data, last = "", [], None

    def pause(self) -> None:
        """Wait before another attempt, and double the next wait (up to a maximum)."""
        time.sleep(self._left(self.wait * random.uniform(0.5, 1.0)))  # noqa: S311 - no secret
        self.wait = min(self.wait * 2, _WAITS[1])

    def _left(self, most: float) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _TimeIsUp
        return min(most, left)


def listen(
    url: str,
    *,
    ca_file: Path | None,
    headers: dict[str, str],
    channels: list[str],
    since: dict[str, str],
    last: int | None,
    as_json: bool,
    count: int | None,
    limit: float | None,
) -> bool:
    """
    Print the messages of *channels*, until *count* messages have come, or *limit* seconds have passed.

    :param headers: HTTP headers with the credentials.
    :param since: positions, by channel.
    :returns: ``False`` if fewer than *count* messages have come.
    :raises ConnectFailed: if the first attempt fails.
    :raises ReplyError: if the server refuses the stream.
    """
    stream = _Stream(url, headers, ca_file, math.inf if limit is None else time.monotonic() + limit)
    query: dict[str, Any] = {"channel": channels}
    if since:
        query["since"] = " ".join(f"{channel}={position}" for channel, position in since.items())
    if last is not None:
        query["last"] = last
    written, was_up = 0, False
    try:
        while True:
            try:
                for name, data in stream.events(query):
                    was_up = True
                    written += _show(name, data, channels, as_json, say)
                    if written == count:
                        return True
                say("the stream has ended; trying again")
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
                if not was_up:
                    stream._left(1.0)
                    raise ConnectFailed(f"cannot connect to {url}: {error}") from None
                stream._left(1.0)
                say(f"the connection was lost: {error}; trying again")
            was_up = True
            query.pop("since", None)
            query.pop("last", None)
            stream.pause()
    except _TimeIsUp:
        if count is not None:
            say(f"{written} of {count} messages came within {limit:g} seconds")
        return count is None


def _show(name: str, data: bytes, channels: list[str], as_json: bool, tell: Callable[[str], None]) -> int:
    """Print an event. Return 1 if it is a message of a channel, else 0."""
    try:
        raw, binary = decode_json(data, UNLIMITED, max_parts=0)
        message = parse(raw, binary=binary, limits=UNLIMITED)
        listed = message.headers.get("publish", "").split()
    except RemoteProtocolError as error:
        tell(f"an event {name[:64]!a} is not a message: {error.reason}")
        return 0
    if not listed:
        _tell(message, tell)
        return 0
    named = message.headers.get("offset-of")
    channel = named if named in listed else next((found for found in listed if found in channels), listed[0])
    write_line(message_json(message, channel) if as_json else f"{channel}\t{one_line(message)}")
    return 1


def _tell(message: Message, tell: Callable[[str], None]) -> None:
    """Report an event of the server itself. Raise a :exc:`ReplyError` if it is an error."""
    reason = message.headers.get("reason", "")
    if message.command == "missed":
        channel = message.headers.get("channel", "")
        tell(f"{channel}: messages are missing, and the server does not have them any more")
    elif message.command == "error":
        status = message.headers.get("status", "")
        raise ReplyError(reason or "error", status=int(status) if status.isdigit() and len(status) == 3 else 500)
    elif message.command == "close":
        tell(f"the server ends the stream: {reason}")
