"""
Requests to NATS over a link: calls of the JetStream API, and direct gets of messages in a stream.

Used by the other parts of :class:`lhttp_tx.bus.nats.jetstream.store.JetStreamHistory`. Coroutines for asyncio.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from itertools import repeat
from typing import Any, NamedTuple, final

from lhttp_tx.bus.nats.headers import Head, publish_commands, read_head
from lhttp_tx.bus.nats.link import Link
from lhttp_tx.errors import HistoryUnavailable

__all__ = ["NO_JETSTREAM", "Found", "Got", "Outdated", "ask", "get", "put"]

_TIMEOUT = 4.0
"""The most seconds to wait for an answer, or for its next part."""

_OUTDATED = (10071, 10164)
"""JetStream's error codes for a message that expects another last sequence number."""

NO_JETSTREAM = "NATS has no JetStream, or not for this user: turn it on (nats-server -js)"
"""The error text if nobody has answered."""

_AWAY = "the history store is unavailable, try again later"
_SILENT = f"JetStream did not answer within {_TIMEOUT:g} s"


class Outdated(Exception):
    """A stream is not in the state that the headers of a message require."""


class Found(NamedTuple):
    """
    A message of a stream.

    :ivar offset: its sequence number.
    :ivar subject: its subject in the stream.
    :ivar payload: its payload, as it was published.
    :ivar headers: its headers.
    """

    offset: int
    subject: str
    payload: bytes
    headers: Mapping[str, str]


class Got(NamedTuple):
    """
    The answer to a direct get.

    :ivar found: the messages, oldest first.
    :ivar total: the number of messages that a request without limits would have found.
    """

    found: list[Found]
    total: int


@final
class _Answer:
    """
    The parts of an answer that have arrived so far.

    :ivar pieces: payload and headers of each part.
    :ivar done: succeeds when the answer is complete.
    """

    def __init__(self, *, several: bool) -> None:
        self.pieces: list[tuple[bytes, Mapping[str, str] | None]] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._several = several

    def answer(self, answers: list[bytes], heads: list[Head] | None) -> bool:
        """See :class:`lhttp_tx.bus.nats.inbox.Answered`."""
        for data, head in zip(answers, repeat(None) if heads is None else heads, strict=False):
            headers = None if head is None else read_head(head)
            self.pieces.append((data, headers))
            if not self._several or headers is None or "Status" in headers:
                if not self.done.done():
                    self.done.set_result(None)
                return True
        return False

    def unanswered(self) -> None:
        """See :class:`lhttp_tx.bus.nats.inbox.Answered`."""
        if not self.done.done():
            self.done.set_exception(HistoryUnavailable(_AWAY))


async def _ask(
    link: Link | None, subject: str, body: Mapping[str, Any] | None, *, several: bool = False, head: bytes = b""
) -> _Answer:
    if link is None or not link.usable:
        raise HistoryUnavailable(_AWAY)
    answer = _Answer(several=several)
    reply = link.inbox.expect(answer)
    data = b"" if body is None else json.dumps(body).encode()
    link.inbox.send(publish_commands(f"{subject} {reply}".encode(), head, [data]))
    count = -1
    try:
        while count < len(answer.pieces) and not answer.done.done():
            count = len(answer.pieces)
            await asyncio.wait((answer.done,), timeout=_TIMEOUT)
        if not answer.done.done():
            raise HistoryUnavailable(_SILENT)
        answer.done.result()
    finally:
        link.inbox.forget(reply)
        answer.done.cancel()
    return answer


async def ask(link: Link | None, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """
    Ask the JetStream API.

    :param link: the link to ask over.
    :param name: the name of the API call, without ``$JS.API.``.
    :param body: the request, or ``None`` for an empty one.
    :returns: the answer, which may contain an ``error``.
    :raises HistoryUnavailable: if there is no link, no JetStream, or no valid answer in time.
    """
    return _read(await _ask(link, f"$JS.API.{name}", body))


async def put(link: Link | None, subject: str, headers: Mapping[str, str]) -> int:
    """
    Append a message without a payload to a stream.

    :param link: the link to ask over.
    :param subject: the subject of the message.
    :param headers: its headers. They may require a state of the stream.
    :returns: its sequence number.
    :raises HistoryUnavailable: if there is no answer, or the stream does not accept the message.
    :raises Outdated: if the stream is not in the state that *headers* require.
    """
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = _read(await _ask(link, subject, None, head=f"NATS/1.0\r\n{head}\r\n".encode()))
    if "error" in answer:
        if answer["error"].get("err_code") in _OUTDATED:
            raise Outdated
        raise HistoryUnavailable(f"JetStream: {answer['error'].get('description')}")
    return int(answer["seq"])


def _read(answer: _Answer) -> dict[str, Any]:
    data, headers = answer.pieces[-1]
    if headers is not None and headers.get("Status") == "503":
        raise HistoryUnavailable(NO_JETSTREAM)
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise HistoryUnavailable("JetStream gave an invalid answer")
    return found


async def get(link: Link | None, stream: str, body: Mapping[str, Any]) -> Got:
    """
    Get messages of a stream from any of its replicas.

    :param link: the link to ask over.
    :param stream: the name of the stream.
    :param body: the request of a direct get, with ``batch``.
    :raises HistoryUnavailable: if there is no answer, no such stream, or the request is refused.
    """
    answer = await _ask(link, f"$JS.API.DIRECT.GET.{stream}", body, several=True)
    _, last = answer.pieces.pop()
    status = "" if last is None else last.get("Status", "")
    if status == "503":
        raise HistoryUnavailable("the stream was deleted, or JetStream is unavailable")
    if status not in ("204", "404"):
        raise HistoryUnavailable(f"JetStream refused a direct get with status {status[:3]!r}")
    found = [
        Found(int(headers["Nats-Sequence"]), headers["Nats-Subject"], data, headers)
        for data, headers in answer.pieces
        if headers is not None
    ]
    total = int(found[0].headers.get("Nats-Num-Pending", "0")) + 1 if found else 0
    return Got(found, total)
