"""
HTTP requests to one server, over persistent connections of Twisted's agent.

Used by :mod:`lhttp_tx.client.http.connection` and :mod:`lhttp_tx.client.http.ways`. It does not interpret messages.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from lhttp_tx.client.errors import ConnectFailed
from lhttp_tx.client.websocket.endings import short

__all__ = ["Answer", "Refusal", "Requests", "judge", "pause"]

_IDLE_TIME = 60
"""Seconds for which an idle connection is kept."""

_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
"""The longest first pause before another attempt, and the longest later one, in seconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """
    The answer to a request.

    :ivar code: the HTTP status.
    :ivar status: the status and its phrase, such as ``404 Not Found``.
    :ivar body: the body; empty if ``receive`` has got its parts.
    """

    code: int
    status: str
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, without white space around it."""
        return self.body.decode("utf-8", "replace").strip()


class Refusal(Exception):
    """
    Another attempt would be pointless: the session is over, or the network does not let this transport work.

    :ivar status: the HTTP status; 0 without one.
    """

    def __init__(self, why: str, status: int = 0) -> None:
        super().__init__(why)
        self.status = status


def judge(answer: Answer) -> None:
    """
    Return if the answer is a success.

    :raises Refusal: if another attempt would be pointless.
    :raises ConnectFailed: if another attempt may succeed.
    """
    if 200 <= answer.code < 300:
        return
    text = short(f"{answer.status}: {answer.text}")
    if answer.code < 500 and answer.code not in (408, 429):
        raise Refusal(text, answer.code)
    raise ConnectFailed(text)


def pause(reactor: Any, failures: int) -> Deferred[None]:
    """Wait for a random time before another attempt. The longest time doubles with each failure."""
    seconds = random.random() * min(_LONGEST_PAUSE, _PAUSE * 2 ** min(failures, 10))  # noqa: S311 - no secret
    return deferLater(reactor, seconds, lambda: None)


@final
class Requests:
    """Makes requests to one server."""

    def __init__(self, base: str, endpoint: IStreamClientEndpoint, *, reactor: Any, limit: int) -> None:
        """
        :param base: the URL to which paths are relative. It ends with ``/``.
        :param endpoint: how to reach the server.
        :param limit: the most bytes of an answer. If more come, the request fails. It does not apply to ``receive``.
        """
        self._base = base
        self._reactor = reactor
        self._limit = limit
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.cachedConnectionTimeout = _IDLE_TIME
        self._agent = Agent.usingEndpointFactory(reactor, _Same(endpoint), pool=self._pool)

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        timeout: float | None = None,
        receive: Callable[[bytes], None] | None = None,
    ) -> Deferred[Answer]:
        """
        Make a request.

        :param path: the path and query after the base.
        :param timeout: seconds for the whole answer; ``None``: no limit.
        :param receive: called with each part of the body of an answer with status 200, instead of keeping it.
        :returns: a Deferred that

            - succeeds with the answer, whatever its status;
            - fails with Twisted's error if no complete answer comes, and with :exc:`ValueError` if it is too long.

            Cancel it to drop the connection.
        """
        sent = Headers({name: [value] for name, value in headers.items()})
        producer = _Body(body) if method == "POST" else None
        asking: Deferred[Any] = self._agent.request(
            method.encode("ascii"), f"{self._base}{path}".encode("ascii"), sent, producer
        )
        asking.addCallback(self._read, receive)
        return asking if timeout is None else asking.addTimeout(timeout, self._reactor)

    def _read(self, response: IResponse, receive: Callable[[bytes], None] | None) -> Deferred[Answer]:
        code: int = response.code
        reader = _Reader(receive if code == 200 else None, self._limit)
        response.deliverBody(reader)
        status = f"{code} {response.phrase.decode('ascii', 'replace')}"
        return reader.done.addCallback(lambda body: Answer(code, status, body))

    def close(self) -> Deferred[None]:
        """Close idle connections. The Deferred succeeds when they have ended."""
        closing: Deferred[Any] = self._pool.closeCachedConnections()
        return closing.addCallback(lambda _: None)


@final
@implementer(IAgentEndpointFactory)
class _Same:
    """Returns the same endpoint for every URL."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: object) -> IStreamClientEndpoint:
        """Return the endpoint."""
        return self._endpoint


@final
@implementer(IBodyProducer)
class _Body:
    """The body of a request."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write the body at once. A transport takes any number of bytes."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: all is written at once."""

    def resumeProducing(self) -> None:
        """Do nothing: all is written at once."""

    def stopProducing(self) -> None:
        """Do nothing: all is written at once."""


@final
class _Reader(Protocol):
    """
    Reads the body of an answer.

    :ivar done: succeeds with the body, or fails. Cancel it to drop the connection.
    """

    def __init__(self, receive: Callable[[bytes], None] | None, limit: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._drop())
        self._receive = receive
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        """Part of ``IProtocol``."""
        if self.done.called:
            return
        if self._receive is not None:
            self._receive(data)
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self.done.errback(ValueError(f"an answer of more than {self._limit} bytes"))
            self._drop()

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Part of ``IProtocol``."""
        if self.done.called:
            return
        if reason.check(ResponseDone):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(reason)
