"""
The upstream edge: requests to the operator's backends, by treq.

The filter in :mod:`lhttp_tx.filters.upstream` calls it. Nothing here trusts a backend: its answer is limited in time
and size, its redirects are not followed, its compressed bodies are not inflated. One that does not answer several times
in a row is not asked for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from io import BytesIO
from typing import Any

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectBindError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    FileBodyProducer,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from lhttp_tx.addresses import CheckedEndpoints
from lhttp_tx.breaker import Attempt, CircuitBreaker
from lhttp_tx.errors import UpstreamBusy, UpstreamError, UpstreamForbidden, UpstreamTimeout
from lhttp_tx.targets import Target, TargetPolicy

__all__ = ["UpstreamClient", "UpstreamResponse"]

_log = Logger()

_IDLE_TIME = 30
"""Seconds for which an idle connection to a backend is kept."""

_IDLE_COUNT = 8
"""Idle connections that are kept for each backend."""

_MAX_HEAD_SIZE = 65_536
"""Bytes of the head of an answer, and of the interim answers before it. Twisted reads no more than this at once."""


@dataclass(frozen=True, slots=True)
class UpstreamResponse:
    """
    A backend's answer.

    :ivar status: the HTTP status.
    :ivar body: its body, empty unless it was asked for.
    """

    status: int
    body: bytes


class UpstreamClient:
    """Makes requests to allowed targets over kept-alive connections."""

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
    ) -> None:
        """
        :param reactor: the running reactor; it resolves names and keeps time.
        :param policy: the targets and addresses that are allowed.
        :param timeout: seconds from the first attempt to connect to the last byte of the answer.
        :param max_response_size: bytes of an answer's body that are taken.
        :param max_in_flight: requests under way at one time; more are refused.
        :param max_failures: failures in a row after which a backend is not asked for a while; 0: it always is.
        :param cool_down: seconds for which it is not asked.
        :param tls_policy: which certificates to trust; the default trusts what the platform does.
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
        endpoints = CheckedEndpoints(reactor, policy, BrowserLikePolicyForHTTPS() if tls_policy is None else tls_policy)
        agent = Agent.usingEndpointFactory(reactor, endpoints, pool=self._pool)
        self._client = HTTPClient(_PlainAgent(agent), cookiejar=_no_cookies(), data_to_body_producer=_body_producer)

    @property
    def timeout(self) -> float:
        """Seconds that one request may take."""
        return self._timeout

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._in_flight

    def request(
        self, method: str, target: Target, body: bytes, *, binary: bool, want_body: bool
    ) -> Deferred[UpstreamResponse]:
        """
        Make one request.

        :param method: one of :data:`lhttp_tx.targets.METHODS`.
        :param target: an allowed target.
        :param body: the LHTTP message; it is not sent with GET.
        :param binary: whether it came as a binary WebSocket message.
        :param want_body: whether the answer's body is wanted; otherwise it is read and thrown away.
        :returns: a Deferred that

            - succeeds with the :class:`UpstreamResponse`, whatever its status;
            - fails with :exc:`~lhttp_tx.errors.UpstreamForbidden` if every address of the host is refused, with
              :exc:`~lhttp_tx.errors.UpstreamTimeout`, or with :exc:`~lhttp_tx.errors.UpstreamError`.
        :raises UpstreamForbidden: if the target is not allowed.
        :raises UpstreamBusy: if as many requests as allowed are under way.
        :raises UpstreamDown: if the backend failed several times in a row. That is to say: no head of an answer came,
            because there was no connection, no agreement on TLS, or no time left. Any answer shows that it works,
            whatever the status, and even if the body is too large, too slow or breaks off.
        """
        self._policy.check(target)
        if self._in_flight >= self._max_in_flight:
            raise UpstreamBusy("too many upstream requests are under way")
        attempt = self._breaker.begin(f"{target.scheme}://{target.host}:{target.port}")
        kind = "application/octet-stream" if binary else "text/plain; charset=utf-8"
        with_body = method != "GET"
        self._in_flight += 1
        answer: Deferred[Any] = maybeDeferred(
            self._client.request,
            method,
            _URLAsWritten.from_text(target.url),
            headers=Headers({"User-Agent": ["lhttp_tx"], **({"Content-Type": [kind]} if with_body else {})}),
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
            attempt.abandoned()  # it was not asked: its address is refused, or we have no socket left
        else:
            attempt.failed(str(causes[-1].value)[:200])
        for failure in causes:
            if failure.check(UpstreamError, CancelledError):
                return failure
        _log.debug("upstream request failed: {reason!r}", reason=str(result.value))
        return Failure(UpstreamError("upstream request failed"))

    def close(self) -> Deferred[None]:
        """Close the idle connections; fires when they are closed."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


class _URLAsWritten(EncodedURL):
    """A URL whose host treq does not convert: it is checked as it is written, and an IPv6 address would not pass."""

    def to_uri(self) -> _URLAsWritten:
        return self


class _BoundedProtocol(HTTP11ClientProtocol):
    """A connection to a backend; it hangs up on a head that does not end, which Twisted would keep in memory."""

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
    """A pool of such connections, that logs no line for each one it makes."""

    class _factory(HTTPConnectionPool._factory):  # type: ignore[misc, valid-type]  # noqa: N801
        noisy = False

        def buildProtocol(self, addr: IAddress | None) -> HTTP11ClientProtocol:
            return _BoundedProtocol(self._quiescentCallback)


def _causes(failure: Failure) -> list[Failure]:
    """Return *failure* and those that it was made of, the innermost last."""
    return [failure, *(cause for reason in getattr(failure.value, "reasons", None) or () for cause in _causes(reason))]


def _timed_out(result: Any, timeout: float) -> None:
    raise UpstreamTimeout(f"upstream did not answer within {timeout:g} seconds")


def _no_cookies() -> Any:
    """Return a jar that takes no cookie: what a backend tells one client is not for another's requests."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def _body_producer(body: Any) -> IBodyProducer:
    return FileBodyProducer(BytesIO(body))


class _Collector(Protocol):
    """Takes a body of bounded size; hangs up on a larger one, and when it is cancelled."""

    def __init__(self, limit: int, keep: bool) -> None:
        self.done: Deferred[bytes] = Deferred(self._cancelled)
        self._limit = limit
        self._keep = keep
        self._size = 0
        self._chunks: list[bytes] = []

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
            self._chunks.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._chunks))
        else:
            self.done.errback(UpstreamError("upstream broke off its answer"))

    def _cancelled(self, _: Deferred[bytes]) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        self._chunks.clear()
        if self.transport is not None:
            self.transport.loseConnection()


@implementer(IAgent)
class _PlainAgent:
    """Asks for bodies as they are, and hides from treq that one is compressed, so that nothing is inflated."""

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
