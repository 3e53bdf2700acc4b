"""
``POST``, ``GET`` and ``DELETE /connect``, and ``POST /send``.

The access rules are those of the WebSocket: a client that may not open one gets no session either. The secret of a
session is accepted only in the header ``Authorization``, because URLs end up in logs.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request

from lhttp_tx.auth.attempts import LoginAttempt, read_parameters
from lhttp_tx.errors import LHTTPError, Refused
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.guard.admission import Place, Seat
from lhttp_tx.identity import Identity
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.http.bodies import Run, read_body
from lhttp_tx.transports.http.entries import FORMS
from lhttp_tx.transports.http.outlet import Fetched
from lhttp_tx.transports.http.relay import LONGEST_WAIT, Relay
from lhttp_tx.transports.http.sessions import Sessions
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.web.answers import Pairs
from lhttp_tx.web.asking import Asked, AskedResource
from lhttp_tx.web.connect.stream import LiveStream
from lhttp_tx.web.websocket import hand_over

__all__ = ["ConnectResource", "SendResource"]

_log = RationedLogger(__name__)

T = TypeVar("T")

_MAX_DIGITS = 15
"""The most digits of a number."""

_JSON = (("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"))


class _SessionResource(AskedResource):
    """The base of the resources for sessions."""

    _headers = "Authorization, Cache-Control, Content-Type, Last-Event-ID"
    _subject = "session"

    def __init__(
        self, factory: LHTTPServerFactory, policy: AccessPolicy, websocket: IResource, sessions: Sessions, relay: Relay
    ) -> None:
        """
        :param factory: makes the WebSockets of the server, among which sessions count.
        :param policy: the access rules.
        :param websocket: answers opening handshakes of WebSockets on the same path.
        :param sessions: the sessions of this node.
        :param relay: finds a session on this node or another.
        """
        super().__init__(factory, policy, websocket)
        self._sessions = sessions
        self._relay = relay

    def render(self, request: Request) -> int | bytes:
        """Answer now or later. A status other than 200 and 204 comes with a text that gives the reason."""
        if request.getHeader(b"upgrade"):
            rendered: int | bytes = self.websocket.render(request)
            return rendered
        asked = self._begin(request)
        if not isinstance(asked, Asked):
            return asked
        doing: Deferred[Any] = maybeDeferred(self._do, request, asked)
        doing.addErrback(self._failed, request, asked)
        doing.addErrback(lambda failure: _log.failure("answering failed", failure))
        return NOT_DONE_YET

    def _do(self, request: Request, asked: Asked) -> Deferred[Any]:
        """Do what the request asks for, and answer it."""
        raise NotImplementedError

    def _check(self, request: Request, asked: Asked) -> None:
        """Check a request without counting its client again, because its session counts already."""
        asked.check_known()

    def _challenges(self, request: Request) -> Pairs:
        return (("WWW-Authenticate", "Bearer"),)

    def _runs(self, request: Request, asked: Asked) -> tuple[list[Run], int]:
        """Return the messages of the body, and its size."""
        limits = self._factory.engine.limits
        data: bytes = request.content.read()  # type: ignore[union-attr]
        return read_body(data, asked.header("content-type") or "", limits), len(data)

    def _done(self, _: object, request: Request, asked: Asked) -> None:
        self._finish(request, self._answer(request, 204, [("Cache-Control", "no-store"), *asked.headers], b""))


class ConnectResource(_SessionResource):
    """``POST /connect`` begins a session, ``GET`` fetches its messages, ``DELETE`` ends it."""

    _methods = ("GET", "POST", "DELETE")

    def _check(self, request: Request, asked: Asked) -> None:
        if request.method == b"POST":
            asked.check(self._factory)
        else:
            asked.check_known()

    def _challenges(self, request: Request) -> Pairs:
        return AskedResource._challenges(self, request) if request.method == b"POST" else super()._challenges(request)

    def _do(self, request: Request, asked: Asked) -> Deferred[Any]:
        if request.method == b"POST":
            return self._connect(request, asked)
        if request.method == b"DELETE":
            return self._relay.end(_secret(asked)).addCallback(self._done, request, asked)
        parameters = read_parameters(asked.handshake.query)
        after = _number("after", asked.header("last-event-id") or parameters.get("after", "0"))
        fetcher = secrets.token_hex(8)
        if parameters.get("poll", "0") != "0":
            wait = min(_number("wait", parameters.get("wait", f"{LONGEST_WAIT:.0f}")), LONGEST_WAIT)
            return self._poll(request, asked, _secret(asked), fetcher, after, wait)
        if not isinstance(request.channel, HTTPChannel) or request.channel.transport is None:
            raise Refused(505, "streams are for HTTP/1.1")
        fetching = self._relay.fetch(_secret(asked), fetcher, after, wait=0.0, begins=True)
        return fetching.addCallback(self._stream, request, asked, _secret(asked), fetcher)

    # Beginning

    def _connect(self, request: Request, asked: Asked) -> Deferred[Any]:
        attempt = asked.attempt()
        form = attempt.parameters.get("protocol", "lhttp")
        if form not in FORMS:
            raise Refused(400, f"protocol is one of {', '.join(FORMS)}")
        runs, size = self._runs(request, asked)
        self._sessions.check()
        self._factory.admission.check_pending()
        if self._factory.gate is None:
            admission: Deferred[Identity | None] = maybeDeferred(self._nobody, attempt)
        else:
            admission = self._ask(request, attempt)
        return admission.addCallback(self._open, request, asked, attempt, form, runs, size)

    def _open(
        self,
        identity: Identity | None,
        request: Request,
        asked: Asked,
        attempt: LoginAttempt,
        form: str,
        runs: list[Run],
        size: int,
    ) -> None:
        factory, sessions = self._factory, self._sessions
        if getattr(request.channel, "transport", None) is None:  # the client left while the authenticators decided
            return
        factory.check(asked.handshake, asked.place)  # other clients may have connected meanwhile
        sessions.check()
        session = sessions.begin(asked.peer, self._seat(request, asked), form)
        session.open(identity, None if factory.gate is None else attempt, asked.shown(bool(factory.engine.open_steps)))
        if runs:
            taking = maybeDeferred(session.take, runs, None, size, 0)
            taking.addErrback(lambda failure: failure.trap(LHTTPError))  # its last message says why it is closed
        told = {
            "session": sessions.secret_of(session),
            "wait": int(LONGEST_WAIT),
            "timeout": int(sessions.patience),
            "buffer": factory.engine.limits.unsent_size,
        }
        self._finish(request, self._answer(request, 200, [*_JSON, *asked.headers], json.dumps(told).encode() + b"\n"))

    def _seat(self, request: Request, asked: Asked) -> Seat:
        """Return the place of a new session."""
        if asked.place is not None:
            return Seat(asked.place)
        place = self._factory.admission.enter(request.transport.getPeer())  # type: ignore[union-attr]
        try:
            place.check(asked.handshake.headers)
            return Seat(place)
        finally:
            place.leave()

    # Fetching

    def _poll(
        self, request: Request, asked: Asked, secret: str, fetcher: str, after: int, wait: float
    ) -> Deferred[Any]:
        fetching = self._relay.fetch(secret, fetcher, after, wait=wait, begins=True)
        request.notifyFinish().addErrback(lambda _: fetching.cancel())
        return _waited_for(fetching, asked.place).addCallback(self._polled, request, asked)

    def _polled(self, fetched: Fetched, request: Request, asked: Asked) -> None:
        body = b'{"last":%d,"messages":[%b]}\n' % (fetched.last, b",".join(fetched.entries))
        self._finish(request, self._answer(request, 200, [*_JSON, *asked.headers], body))

    def _stream(self, first: Fetched, request: Request, asked: Asked, secret: str, fetcher: str) -> None:
        channel: Any = request.channel
        if channel is None or channel.transport is None:
            return
        factory = self._factory
        stream = LiveStream(
            self._relay,
            factory.reactor,
            secret=secret,
            fetcher=fetcher,
            patience=self._sessions.patience,
            close_timeout=factory.closeHandshakeTimeout,
            limit=factory.engine.limits.unsent_size,
        )
        channel.clearLineBuffer()
        channel._dataBuffer = []
        hand_over(channel, stream)
        stream.begin(first, tuple(asked.headers))


class SendResource(_SessionResource):
    """``POST /send``: messages of a client that has a session."""

    _methods = ("POST",)

    def _do(self, request: Request, asked: Asked) -> Deferred[Any]:
        parameters = read_parameters(asked.handshake.query)
        number = _number("number", parameters["number"]) if "number" in parameters else None
        after = _number("after", parameters.get("after", "0"))
        secret = _secret(asked)
        runs, size = self._runs(request, asked)
        sending = self._relay.send(secret, runs, number, size, after)
        request.notifyFinish().addErrback(lambda _: sending.cancel())
        sending.addErrback(_unless_cancelled)
        return _waited_for(sending, asked.place).addCallback(self._done, request, asked)


def _waited_for(waiting: Deferred[T], place: Place | None) -> Deferred[T]:
    """Do not count a request as pending until *waiting* is done. Its session counts, and has one such request."""

    def done(outcome: T) -> T:
        if place is not None:
            place.resume()
        return outcome

    if place is not None and not waiting.called:
        place.suspend()
        waiting.addBoth(done)
    return waiting


def _unless_cancelled(failure: Failure) -> Failure:
    if failure.check(CancelledError):
        raise Refused(408, "the client has gone")  # nobody reads it
    return failure


def _secret(asked: Asked) -> str:
    """
    Return the secret in a request.

    :raises Refused: with status 401 if there is none.
    """
    scheme, _, secret = (asked.header("authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not secret:
        raise Refused(401, "begin with POST /connect, and bring its secret: Authorization: Bearer SECRET")
    return secret.strip(" ")


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise Refused(400, f"{name} is not a number: {text[:64]!a}")
    return int(text)
