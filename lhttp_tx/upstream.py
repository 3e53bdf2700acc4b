"""
The upstream edge: requests to the operator's backends, by treq.

The filter in :mod:`lhttp_tx.filters.upstream` calls it. Nothing here trusts a backend: its answer is limited in time
and size, its redirects are not followed, its compressed bodies are not inflated.
"""

from __future__ import annotations

from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from io import BytesIO
from typing import Any

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
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
from lhttp_tx.errors import UpstreamBusy, UpstreamError, UpstreamTimeout
from lhttp_tx.targets import Target, TargetPolicy

__all__ = ["UpstreamClient", "UpstreamResponse"]

_log = Logger()

_IDLE_TIME = 30
"""Seconds for which an idle connection to a backend is kept."""

_IDLE_COUNT = 8
"""Idle connections that are kept for each backend."""


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
        tls_policy: IPolicyForHTTPS | None = None,
    ) -> None:
        """
        :param reactor: the running reactor; it resolves names and keeps time.
        :param policy: the targets and addresses that are allowed.
        :param timeout: seconds from the first attempt to connect to the last byte of the answer.
        :param max_response_size: bytes of an answer's body that are taken.
        :param max_in_flight: requests under way at one time; more are refused.
        :param tls_policy: which certificates to trust; the default trusts what the platform does.
        """
        self._reactor = reactor
        self._policy = policy
        self._timeout = timeout
        self._max_response_size = max_response_size
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._pool = _QuietPool(reactor, persistent=True)
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
        """
        self._policy.check(target)
        if self._in_flight >= self._max_in_flight:
            raise UpstreamBusy("too many upstream requests are under way")
        kind = "application/octet-stream" if binary else "text/plain; charset=utf-8"
        with_body = method != "GET"
        self._in_flight += 1
        answer: Deferred[Any] = self._client.request(
            method,
            _URLAsWritten.from_text(target.url),
            headers=Headers({"User-Agent": ["lhttp_tx"], **({"Content-Type": [kind]} if with_body else {})}),
            data=body if with_body else None,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        answer.addCallback(self._collect, want_body)
        return answer.addTimeout(self._timeout, self._reactor, _timed_out).addBoth(self._finished)

    def _collect(self, response: Any, want_body: bool) -> Deferred[UpstreamResponse]:
        collector = _Collector(self._max_response_size, want_body)
        response.original.deliverBody(collector)
        return collector.done.addCallback(lambda body: UpstreamResponse(response.code, body))

    def _finished(self, result: Any) -> Any:
        self._in_flight -= 1
        if not isinstance(result, Failure) or isinstance(result.value, UpstreamError | CancelledError):
            return result
        reasons = getattr(result.value, "reasons", None)
        for failure in (result, *(reasons or ())):
            if isinstance(failure.value, UpstreamError):
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


class _QuietPool(HTTPConnectionPool):
    """A pool that logs no line for each connection it makes."""

    class _factory(HTTPConnectionPool._factory):  # type: ignore[misc, valid-type]  # noqa: N801
        noisy = False


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
            self._hang_up()
            if self.done.called:
                return
            if not self._keep:
                self.done.callback(b"")
            else:
                self.done.errback(UpstreamError(f"upstream answered with more than {self._limit} bytes"))
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
