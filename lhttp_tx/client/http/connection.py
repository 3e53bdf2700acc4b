"""
One connection of a client over HTTP requests: a session of the server.

It has the part of the interface of a :class:`~lhttp_tx.client.websocket.protocol.WebSocketConnection` that the client
needs. It fetches messages as a stream or by long polling, and sends messages with requests. Each request may go to
another node. If a request or an answer is lost, the connection repeats the request, so that no message is missing or
comes twice.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.client.errors import ConnectFailed
from lhttp_tx.client.http.incoming import Incoming, Mode, Told
from lhttp_tx.client.http.outgoing import Outgoing
from lhttp_tx.client.http.requests import Answer, Refusal, Requests
from lhttp_tx.client.websocket.connection import Link
from lhttp_tx.client.websocket.endings import lost, refused, short
from lhttp_tx.codec.limits import UNLIMITED
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.errors import LHTTPError

__all__ = ["HTTPConnection"]

_log = Logger()

_SEND_TIME = 30.0
"""Seconds to wait for the answer to a request that sends messages."""

_ABNORMAL = 1006

_CLOSE = re.compile(r"LHTTP/1\.0 close\r\ncode:(\d{3,4})\r\nreason:([^\r\n]*)\r\n\r\n", re.ASCII)


@final
class HTTPConnection:
    """
    One session.

    :ivar opened: succeeds with this connection when messages can be sent. Otherwise it fails with
        :exc:`~lhttp_tx.client.errors.ConnectFailed`, or with :exc:`~lhttp_tx.client.errors.LoginFailed` for status 401.
    :ivar closed_by_us: whether this side has begun to close it.
    :ivar whole: ``True``: messages are sent whole, and not in fragments.
    """

    whole = True

    def __init__(
        self, requests: Requests, mode: Mode, *, reactor: Any, close_timeout: float, max_message_size: int
    ) -> None:
        """
        :param requests: makes the requests. The connection closes it at the end.
        :param mode: how messages are fetched.
        :param close_timeout: when the client closes the connection, the most seconds until the server has taken the
            remaining messages, and again the most seconds until the session has ended.
        :param max_message_size: the most bytes of a received message. A larger one ends the connection.
        """
        self.opened: Deferred[HTTPConnection] = Deferred(lambda _: self.abort())
        self.closed_by_us = False
        self._requests = requests
        self._reactor = reactor
        self._close_timeout = close_timeout
        self._max_message_size = max_message_size
        self._link: Link | None = None
        self._lost: Callable[[Failure], object] = lambda _: None
        self._running: Deferred[None] | None = None
        self._headers: dict[str, str] = {}
        self._secret = False
        self._told = Told(0.0, 0.0, 0.0)
        self._incoming = Incoming(self, requests, mode, reactor=reactor, largest=max_message_size)
        self._outgoing = Outgoing(
            self._post, reactor=reactor, drained=self._writable, refused=self._refused, failed=self.fail
        )
        self._over = False

    def begin(self, query: str, headers: Mapping[str, str]) -> None:
        """
        Begin the session.

        :param query: the query of the URL. It may contain credentials.
        :param headers: HTTP headers of the first request. All but ``Authorization`` are also sent with the others.
        """
        self._running = Deferred.fromCoroutine(self._run(query, headers))

    def attach(self, link: Link, ended: Callable[[Failure], object]) -> None:
        """
        Pass all messages from now on to *link*.

        :param ended: called with the reason when the connection has ended.
        """
        self._link, self._lost = link, ended

    @property
    def unsent(self) -> int:
        """Bytes of the messages that the server has not taken yet."""
        return self._outgoing.unsent

    @property
    def congested(self) -> bool:
        """Whether the server has not taken all messages yet."""
        return self._outgoing.unsent > 0

    async def _run(self, query: str, headers: Mapping[str, str]) -> None:
        try:
            await self._connect(query, headers)
            await self._incoming.run(self._told, self._headers)
        except CancelledError:
            pass
        except Refusal as refusal:
            self.fail(str(refusal))
        except ConnectFailed as error:
            self._end(_ABNORMAL, "", error)
        except Exception as error:
            self.fail(short(str(error) or type(error).__name__))

    async def _connect(self, query: str, headers: Mapping[str, str]) -> None:
        answer = await self._requests.ask("POST", f"connect{query}", headers=headers)
        if answer.code != 200:
            raise refused("a session", answer.status, answer.text)
        try:
            told = json.loads(answer.body)
            self._told = Told(*(float(told[name]) for name in ("wait", "timeout", "buffer")))
            secret = str(told["session"])
        except (ValueError, TypeError, KeyError):
            raise ConnectFailed("the server has no sessions: its answer to POST /connect is something else") from None
        self._headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        self._headers["Authorization"] = f"Bearer {secret}"
        self._secret = True
        self._outgoing.begin(self._told.timeout)

    # Fetching

    def begun(self) -> None:
        """See :class:`~lhttp_tx.client.http.incoming.IncomingOwner`."""
        if not self.opened.called and not self._over:
            self.opened.callback(self)

    def received(self, entry: Any) -> None:
        """See :class:`~lhttp_tx.client.http.incoming.IncomingOwner`. An entry is a text, or bytes as base64."""
        closing = _CLOSE.fullmatch(entry) if isinstance(entry, str) else None
        if closing is not None:
            self._end(int(closing[1]), closing[2])
            return
        try:
            payload, binary = (entry.encode("utf-8"), False) if isinstance(entry, str) else (_bytes(entry), True)
        except (ValueError, TypeError, KeyError):
            self.fail("the server has sent an entry that is not a message")
            return
        if len(payload) > self._max_message_size:
            self.fail(f"the server has sent a message of more than {self._max_message_size} bytes")
        else:
            self.onMessage(payload, binary)

    def onMessage(self, payload: bytes, binary: bool) -> None:
        """Pass a message on."""
        if self._link is not None:
            self._link.message_received(payload, binary)

    # Sending

    def send_message(self, payload: bytes, binary: bool) -> None:
        """Send a message. It is dropped if the connection is closing."""
        if not self._over and not self.closed_by_us:
            self._outgoing.add(payload, binary)

    def encoded(self, payload: bytes, binary: bool) -> tuple[bytes, bool]:
        """Return a message in the form in which it is sent, and whether that is binary. It is not changed."""
        return payload, binary

    def send_fragment(self, payload: bytes, binary: bool, *, first: bool, last: bool) -> None:
        """Send a message. It must be one fragment."""
        assert first is last is True, "messages are sent whole"
        self.send_message(payload, binary)

    def acknowledge(self) -> None:
        """See :class:`~lhttp_tx.client.http.incoming.IncomingOwner`."""
        self._outgoing.acknowledge()

    def _post(self, number: int | None, body: bytes, content_type: str) -> Deferred[Answer]:
        headers = {**self._headers, "Content-Type": content_type}
        after = self._incoming.told_last()
        path = f"send?after={after}" if number is None else f"send?number={number}&after={after}"
        return self._requests.ask("POST", path, headers=headers, body=body, timeout=_SEND_TIME)

    def _refused(self, payload: bytes, binary: bool, why: str) -> None:
        """Answer a message that is too large for the server, as the server does over a WebSocket."""
        token = parse(payload, binary=binary, limits=UNLIMITED).headers.get("receipt")
        answered = [] if token is None else [("receipt-id", token)]
        self.onMessage(Message("error", [("status", "413"), ("reason", why), *answered]).raw, False)

    def _writable(self) -> None:
        if self._link is not None:
            self._link.writable()

    def fail(self, why: str) -> None:
        """Give up the session for the reason *why*."""
        self._end(_ABNORMAL, "", ConnectFailed(why))

    # The end

    def loseConnection(self) -> None:
        """End the session after the server has taken all messages, or its time is over. Then disconnect."""
        if not self._over and not self.closed_by_us:
            self.closed_by_us = True
            _do(self._close)

    async def _close(self) -> None:
        await self._outgoing.when_idle(self._close_timeout)
        self._end(1000, "")

    def abort(self) -> None:
        """Drop the connection at once. Tell the server, but do not wait for its answer."""
        self._end(_ABNORMAL, "")

    def _end(self, code: int, reason: str, why: LHTTPError | None = None) -> None:
        """
        End the connection. Tell its user in a later turn of the reactor, because the user may be the caller.

        :param why: the error that ends the connection; ``None`` if there is none.
        """
        if self._over:
            return
        self._over = self._incoming.over = True
        self._reactor.callLater(0, _do, self._finish, code, reason, why)

    async def _finish(self, code: int, reason: str, why: LHTTPError | None) -> None:
        self._outgoing.stop()
        if self._running is not None:
            self._running.cancel()
        leaving = self._leave()
        if self.closed_by_us:
            await leaving
        ended, self._lost, self._link = self._lost, lambda _: None, None
        if not self.opened.called:
            self.opened.errback(Failure(why or ConnectFailed("the connection was lost")))
        error = lost(code, reason, clean=code != _ABNORMAL, closed_by_us=self.closed_by_us)
        if why is not None and why.reason:
            error.reason = f"{error.reason}: {why.reason}"
        ended(Failure(error))

    def _leave(self) -> Deferred[None]:
        """End the session at the server, and close the connections. If this fails, the session ends by itself."""
        leaving: Deferred[Any] = Deferred()
        if self._secret:
            asking = self._requests.ask("DELETE", "connect", headers=self._headers, timeout=self._close_timeout)
            leaving.addCallback(lambda _: asking)
            leaving.addErrback(lambda failure: _log.debug("ending a session: {reason}", reason=failure.value))
        leaving.addCallback(lambda _: self._requests.close())
        leaving.addErrback(lambda failure: _log.failure("closing connections failed", failure))
        leaving.callback(None)
        return leaving


def _do(work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
    """Start a coroutine that ends a session. Log its errors."""
    doing = Deferred.fromCoroutine(work(*arguments))
    doing.addErrback(lambda failure: _log.failure("ending a session failed", failure))


def _bytes(entry: Any) -> bytes:
    return b64decode(entry["base64"])
