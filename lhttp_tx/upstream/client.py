"""
The upstream edge: requests to the operator's backends, by treq.

The filter in :mod:`lhttp_tx.upstream.filter` calls it. The client does not trust a backend. It limits the time and size
of the answer, follows no redirects, and inflates no compressed bodies. If a backend fails to answer several times in a
row, the client does not call it for some time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectBindError
from twisted.internet.interfaces import IAddress, IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from lhttp_tx.errors import UpstreamBusy, UpstreamError, UpstreamForbidden, UpstreamTimeout
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.upstream.addresses import CheckedEndpoints
from lhttp_tx.upstream.breaker import Attempt, CircuitBreaker
from lhttp_tx.upstream.targets import Target, TargetPolicy

__all__ = ["UpstreamClient", "UpstreamResponse"]

_log = RationedLogger(__name__)

_IDLE_TIME = 30
"""Seconds for which the client keeps an idle connection to a backend."""

_IDLE_COUNT = 8
"""The most idle connections to each backend."""

_MAX_HEAD_SIZE = 65_536
"""
The most bytes of the head of an answer, including the interim answers before it. Twisted reads no more than this at
once.
"""


@dataclass(frozen=True, slots=True)
class UpstreamResponse:
    """
    A backend's answer.

    :ivar status: the HTTP status.
    :ivar body: the body; empty unless the caller asked for it.
    """

    status: int
    body: bytes


class UpstreamClient:
    """Makes requests to allowed targets, over persistent connections."""

    def __init__(
        self,
        *,
        reactor: Any,
        policy: TargetPolicy,
        timeout: float = 10.0,
        max_response_size: int = 65_536,
        max_in_flight: int = 100,
        max_failures: int = 5,
        cool_down: float = 10.0,
        tls_policy: IPolicyForHTTPS | None = None,
        agent: IAgent | None = None,
    ) -> None:
        """
        :param reactor: the running reactor, for names and time.
        :param policy: the allowed targets and addresses.
        :param timeout: seconds from the first attempt to connect to the last byte of the answer.
        :param max_response_size: the most bytes of an answer's body.
        :param max_in_flight: requests under way at one time; more are refused.
        :param max_failures: consecutive failures after which the client stops calling a backend for some time; 0:
            never.
        :param cool_down: seconds for which it does not call the backend.
        :param tls_policy: the certificates to trust; by default, those that the platform trusts.
        :param agent: makes the requests. The default is Twisted's agent, limited to allowed addresses.
        """
        self._reactor = reactor
        self._policy = policy
        self._timeout = timeout
        self._max_response_size = max_response_size
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._breaker = CircuitBreaker(clock=reactor, max_failures=max_failures, cool_down=cool_down)
        self._pool = _Pool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = _IDLE_COUNT
        self._pool.cachedConnectionTimeout = _IDLE_TIME
        if agent is None:
            endpoints = CheckedEndpoints(reactor, policy, tls_policy or BrowserLikePolicyForHTTPS())
            agent = Agent.usingEndpointFactory(reactor, endpoints, pool=self._pool)
        self._client = HTTPClient(_PlainAgent(agent), cookiejar=_no_cookies(), data_to_body_producer=_Body)

    @property
    def timeout(self) -> float:
        """Seconds that one request may take."""
        return self._timeout

    def request(
        self,
        method: str,
        target: Target,
        body: bytes,
        *,
        binary: bool,
        want_body: bool,
        headers: Iterable[tuple[str, str]] = (),
    ) -> Deferred[UpstreamResponse]:
        """
        Make one request.

        :param method: one of :data:`lhttp_tx.upstream.targets.METHODS`.
        :param target: an allowed target.
        :param body: the body of the request: the LHTTP message or its body. A GET request has no body.
        :param binary: whether the message came as a binary WebSocket message.
        :param headers: more headers of the request, checked by :func:`lhttp_tx.upstream.forwarding.http_headers`. They
            take precedence over those that the server would set.
        :param want_body: whether to return the answer's body; otherwise it is read and dropped.
        :returns: a Deferred that

            - succeeds with the :class:`UpstreamResponse`, whatever its status;
            - fails with :exc:`~lhttp_tx.errors.UpstreamForbidden` if no address of the host is allowed;
            - fails with :exc:`~lhttp_tx.errors.UpstreamTimeout` or :exc:`~lhttp_tx.errors.UpstreamError`.
        :raises UpstreamForbidden: if the target is not allowed.
        :raises UpstreamBusy: if *max_in_flight* requests are under way.
        :raises UpstreamDown: if the backend failed several times in a row. A failure means that no head of an answer
            came, because the connection or TLS failed, or the time ran out. Any answer counts as a success, whatever
            its status, even if the body is too large, too slow or incomplete.
        """
        self._policy.check(target)
        if self._in_flight >= self._max_in_flight:
            raise UpstreamBusy("too many upstream requests are in progress")
        attempt = self._breaker.begin(f"{target.scheme}://{target.host}:{target.port}")
        kind = "application/octet-stream" if binary else "text/plain; charset=utf-8"
        with_body = method != "GET"
        sent = Headers({"User-Agent": ["lhttp_tx"], **({"Content-Type": [kind]} if with_body else {})})
        for name, value in headers:
            sent.setRawHeaders(name.encode("ascii"), [value.encode("utf-8")])
        self._in_flight += 1
        answer: Deferred[Any] = maybeDeferred(
            self._client.request,
            method,
            _URLAsWritten.from_text(target.url),
            headers=sent,
            data=body if with_body else None,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        answer.addCallback(self._collect, attempt, want_body)
        answer.addTimeout(self._timeout, self._reactor, _timed_out)
        answer.addBoth(self._finished, attempt)

        def cancelled(_: object) -> None:
            attempt.abandoned()
            answer.cancel()

        result: Deferred[UpstreamResponse] = Deferred(cancelled)
        answer.chainDeferred(result)
        return result

    def _collect(self, response: Any, attempt: Attempt, want_body: bool) -> Deferred[UpstreamResponse]:
        attempt.succeeded()
        collector = _Collector(self._max_response_size, want_body)
        response.original.deliverBody(collector)
        return collector.done.addCallback(lambda body: UpstreamResponse(response.code, body))

    def _finished(self, result: Any, attempt: Attempt) -> Any:
        self._in_flight -= 1
        if not isinstance(result, Failure):
            return result
        causes = _causes(result)
        if any(cause.check(UpstreamForbidden, ConnectBindError) for cause in causes):
            attempt.abandoned()  # nothing was sent: the address is refused, or this process has no descriptors left
        else:
            attempt.failed(str(causes[-1].value)[:200])
        for failure in causes:
            if failure.check(UpstreamError, CancelledError):
                return failure
        _log.debug("upstream request failed: {reason!r}", reason=str(result.value))
        return Failure(UpstreamError("upstream request failed"))

    def close(self) -> Deferred[None]:
        """Close the idle connections. The Deferred fires when they are closed."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


class _URLAsWritten(EncodedURL):
    """
    A URL whose host treq does not convert. The policy checks the host as it is written, and treq would reject an IPv6
    address.
    """

    def to_uri(self) -> _URLAsWritten:
        return self


class _BoundedProtocol(HTTP11ClientProtocol):
    """
    A connection to a backend. It closes if the answer's head does not end, since Twisted would keep the head in memory.
    """

    _head_size: int | None = None

    def request(self, request: Any) -> Deferred[IResponse]:
        self._head_size = 0
        return super().request(request).addBoth(self._head_ended)

    def dataReceived(self, data: bytes) -> None:
        if self._head_size is not None:
            self._head_size += len(data)
        super().dataReceived(data)
        if self._head_size is not None and self._head_size > _MAX_HEAD_SIZE:
            self.transport.abortConnection()  # type: ignore[union-attr]

    def _head_ended(self, result: Any) -> Any:
        size, self._head_size = self._head_size, None
        if isinstance(result, Failure) and size is not None and size > _MAX_HEAD_SIZE:
            return Failure(UpstreamError(f"upstream answered with a head of more than {_MAX_HEAD_SIZE} bytes"))
        return result


class _Pool(HTTPConnectionPool):
    """A pool of :class:`_BoundedProtocol`, which does not log each new connection."""

    class _factory(HTTPConnectionPool._factory):  # type: ignore[misc, valid-type]  # noqa: N801
        noisy = False

        def buildProtocol(self, addr: IAddress | None) -> HTTP11ClientProtocol:
            return _BoundedProtocol(self._quiescentCallback)


def _causes(failure: Failure) -> list[Failure]:
    """Return *failure* and the failures that caused it, with the innermost last."""
    return [failure, *(cause for reason in getattr(failure.value, "reasons", None) or () for cause in _causes(reason))]


def _timed_out(result: Any, timeout: float) -> None:
    raise UpstreamTimeout(f"upstream did not answer within {timeout:g} seconds")


def _no_cookies() -> Any:
    """Return a jar that takes no cookies: a cookie for one client must not go into another client's requests."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


@implementer(IBodyProducer)
class _Body:
    """Writes a body from memory in one piece."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: the whole body is already written."""

    resumeProducing = stopProducing = pauseProducing


class _Collector(Protocol):
    """Reads a body of bounded size. Closes the connection if the body is larger, or if the Deferred is cancelled."""

    def __init__(self, limit: int, keep: bool) -> None:
        self.done: Deferred[bytes] = Deferred(self._cancelled)
        self._limit = limit
        self._keep = keep
        self._size = 0
        self._body = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            if not self.done.called:
                if not self._keep:
                    self.done.callback(b"")
                else:
                    self.done.errback(UpstreamError(f"upstream answered with more than {self._limit} bytes"))
            self._hang_up()
        elif self._keep:
            self._body += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self._body))
        else:
            self.done.errback(UpstreamError("upstream broke off its answer"))

    def _cancelled(self, _: Deferred[bytes]) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        self._body.clear()
        if self.transport is not None:
            self.transport.loseConnection()


@implementer(IAgent)
class _PlainAgent:
    """
    Asks for uncompressed bodies, and hides the encoding of a compressed one from treq, so that nothing is inflated.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        plain = headers.copy() if headers is not None else Headers()
        plain.setRawHeaders(b"accept-encoding", [b"identity"])
        answer: Deferred[IResponse] = self._agent.request(method, uri, plain, bodyProducer)
        return answer.addCallback(self._hide_encoding)

    def _hide_encoding(self, response: IResponse) -> IResponse:
        response.headers.removeHeader(b"content-encoding")
        return response
