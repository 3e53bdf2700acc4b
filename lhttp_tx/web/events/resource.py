"""
``GET /events`` and ``POST /events/ticket``.

The rules are those of the WebSocket: who may not open one gets no stream either. Source: the protocol document, section
"Event streams".
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from lhttp_tx.auth.attempts import LoginAttempt, read_parameters
from lhttp_tx.auth.gate import Gate
from lhttp_tx.engine.handshake import Handshake as Shown
from lhttp_tx.errors import LHTTPError, Refused
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.guard.admission import Place, peer_name
from lhttp_tx.guard.heads import check_headers
from lhttp_tx.identity import Identity, new_connection_id
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.handshake import Handshake, certificate_of
from lhttp_tx.web.events.answers import STREAM_HEADERS, STREAM_TYPE, phrase, refusal
from lhttp_tx.web.events.query import Wish, read_wish
from lhttp_tx.web.events.stream import EventStream
from lhttp_tx.web.events.streams import Streams
from lhttp_tx.web.events.tickets import LIFETIME
from lhttp_tx.web.paths import is_named_plainly
from lhttp_tx.web.websocket import hand_over

__all__ = ["EventsResource", "TicketResource"]

_log = RationedLogger(__name__)

_OWN_SITE = (None, "same-origin", "none")
"""What ``Sec-Fetch-Site`` says of requests that no page of another site has made."""

_TOO_MANY = (429, 503)
"""Statuses of refusals that may be many. The log does not get a line for each."""

_PREFLIGHT_AGE = 600
"""Seconds for which a browser need not ask again whether a page may send a request."""


class _Asked:
    """
    A request, as far as both resources look at it.

    :ivar handshake: its target and its headers.
    :ivar place: its place among the connections of the server; ``None`` if the site does not count them.
    :ivar headers: headers of the response that depend on it.
    """

    def __init__(self, request: Request, policy: AccessPolicy) -> None:
        found: dict[str, list[bytes]] = {}
        for name, values in request.requestHeaders.getAllRawHeaders():
            found.setdefault(name.lower().decode("latin-1"), []).extend(values)
        self._repeated = [name.encode("latin-1") for name, values in found.items() for _ in values]
        joined = {
            name: (b"; " if name == "cookie" else b", ").join(values).decode("latin-1")
            for name, values in found.items()
        }
        self.handshake = Handshake(request.uri.decode("latin-1"), joined)
        self.place: Place | None = getattr(request.channel, "place", None)
        self._policy = policy
        self._request = request
        self.headers: list[tuple[str, str]] = [("Vary", "Origin")]

    def header(self, name: str) -> str | None:
        """Return the value of a header, by its name in lower case."""
        return self.handshake.headers.get(name)

    def check(self, factory: LHTTPServerFactory) -> None:
        """
        Apply the rules for handshakes.

        :raises Refused: if one is against it.
        """
        check_headers(self._repeated)
        factory.check(self.handshake, self.place)
        origin = self.header("origin")
        if origin is None:
            # An image or a script of another site: its request names no origin, and would bring the user's cookies.
            if self.header("sec-fetch-site") not in _OWN_SITE:
                raise Refused(403, "pages of another site may read this with EventSource or fetch, if they are allowed")
        elif self._is_named(origin):
            self.headers += [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
        else:
            self.headers.append(("Access-Control-Allow-Origin", "*"))  # without the user's cookies

    def _is_named(self, origin: str) -> bool:
        """Return whether an origin is allowed by its name, and not because all are."""
        try:
            AccessPolicy(self._policy.origins - {"*"}).check_origin(origin, self.header("host"))
        except Refused:
            return False
        return True

    @property
    def peer(self) -> str:
        """The address of the client, for logs."""
        place = self.place
        if place is not None and place.forwarded:
            return f"tcp{6 if ':' in str(place.client) else 4}:{place.client}"
        return peer_name(self._request.transport.getPeer())  # type: ignore[union-attr]

    def attempt(self) -> LoginAttempt:
        """Return the attempt to log in that the request is."""
        return LoginAttempt(
            self.peer,
            new_connection_id(),
            self.handshake.path,
            read_parameters(self.handshake.query),
            self.handshake.headers,
            secure=bool(self._request.isSecure()),
            certificate=certificate_of(self._request.transport) if self._request.isSecure() else None,
        )


class _AskedResource(Resource):
    """
    A resource that asks who the client is before it answers.

    :ivar websocket: what answers opening handshakes of WebSockets on the same path.
    """

    isLeaf = False
    _method = b"GET"

    def __init__(self, streams: Streams, policy: AccessPolicy, websocket: IResource) -> None:
        """
        :param streams: the streams of the server.
        :param policy: who may come in.
        """
        super().__init__()
        self._streams = streams
        self._policy = policy
        self.websocket = websocket

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Return the WebSocket, as for every path that has no resource of its own."""
        return self.websocket

    def _refuse(self, request: Request, asked: _Asked, error: LHTTPError) -> bytes:
        """Answer with a refusal."""
        if error.status in _TOO_MANY:
            self._streams.factory.admission.refuse(asked.peer, f"status {error.status}, {error.reason}")
        else:
            told = {"peer": asked.peer, "status": error.status, "why": error.reason}
            _log.info("{peer}: event stream refused with {status}: {why!r}", **told)
        challenges = self._gate.challenges if error.status == 401 and self._gate is not None else ()
        headers = (*asked.headers, *challenges)
        return self._answer(request, *refusal(error.status, error.reason, headers, asked.header("accept") or ""))

    @property
    def _gate(self) -> Gate | None:
        return self._streams.factory.gate

    def _answer(self, request: Request, status: int, headers: Any, body: bytes) -> bytes:
        request.setResponseCode(status, phrase(status).encode("latin-1"))
        for name, value in headers:
            request.responseHeaders.addRawHeader(name, value.encode("latin-1"))
        if body:
            request.setHeader(b"content-length", b"%d" % len(body))
        return b"" if request.method == b"HEAD" else body

    def _preflight(self, request: Request, asked: _Asked) -> bytes:
        """Tell a browser whether a page may send the request that it wants to send (Fetch standard)."""
        headers = [
            *asked.headers,
            ("Allow", f"{self._method.decode()}, OPTIONS"),
            ("Access-Control-Allow-Methods", self._method.decode()),
            ("Access-Control-Allow-Headers", "Authorization, Last-Event-ID, Cache-Control"),
            ("Access-Control-Max-Age", str(_PREFLIGHT_AGE)),
        ]
        return self._answer(request, 204, headers, b"")

    def _begin(self, request: Request) -> _Asked | int | bytes:
        """Check a request. Return it, or what ``render`` is to return if it is answered already."""
        request.responseHeaders.removeHeader(b"server")
        asked = _Asked(request, self._policy)
        try:
            if not is_named_plainly(request):
                raise Refused(404, "not found: write the path exactly")
            asked.check(self._streams.factory)
            if request.method == b"OPTIONS":
                return self._preflight(request, asked)
            if request.method not in ((b"GET", b"HEAD") if self._method == b"GET" else (self._method,)):
                asked.headers.append(("Allow", f"{self._method.decode()}, OPTIONS"))
                raise Refused(405, f"use {self._method.decode()}")
        except LHTTPError as error:
            return self._leave(request) if self._is_leaving else self._refuse(request, asked, error)
        return asked

    @property
    def _is_leaving(self) -> bool:
        return self._streams.factory.draining

    def _leave(self, request: Request) -> int | bytes:
        """
        Refuse a client because the server goes away.

        An ``EventSource`` gets no answer: then it comes again, to another node or after the restart.
        """
        channel: Any = request.channel
        if STREAM_TYPE.encode("ascii") in (request.getHeader(b"accept") or b"").lower():
            channel.transport.abortConnection()
            return NOT_DONE_YET
        request.setResponseCode(503)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return b"server is going away\n"

    def _ask(self, request: Request, asked: _Asked, ticket: str | None = None) -> Deferred[Identity | None]:
        """
        Find out who the client is, as long as it waits for that.

        :returns: a Deferred that

            - succeeds with the identity, ``None`` if nobody is asked to log in and only the address is known;
            - fails with :exc:`~lhttp_tx.errors.Refused`.
        """
        gate = self._gate
        attempt = asked.attempt()
        parameters = attempt.parameters
        if gate is None:
            return succeed(Identity(None, attempt.connection_id, {}, parameters, asked.peer) if parameters else None)
        if ticket is not None:
            identity = self._streams.tickets.redeem(ticket)
            kept = {name: value for name, value in parameters.items() if name not in {"ticket", *gate.secrets}}
            return succeed(replace(identity, connection_id=attempt.connection_id, address=asked.peer, parameters=kept))
        if not gate.secrets.isdisjoint(parameters):
            raise Refused(400, "secrets in URLs end up in logs: use a header, a cookie, or a ticket")
        admission = gate.admit(attempt)
        request.notifyFinish().addErrback(lambda _: admission.cancel())
        return admission.addCallback(_known)

    def _not_admitted(self, failure: Failure, request: Request, asked: _Asked) -> None:
        error = failure.value
        if isinstance(error, CancelledError) or getattr(request.channel, "transport", None) is None:
            return
        if not isinstance(error, LHTTPError):
            _log.failure("opening an event stream failed", failure)
            error = Refused(500, "internal error")
        body = self._leave(request) if self._is_leaving else self._refuse(request, asked, error)
        if isinstance(body, bytes):
            request.write(body)
            request.finish()


def _known(identity: Identity | None) -> Identity:
    if identity is None:
        raise Refused(401, "log in with a header, a cookie or a ticket: an event stream accepts no login message")
    return identity


class EventsResource(_AskedResource):
    """``GET /events``: an event stream. Its child ``ticket`` is :class:`TicketResource`."""

    def __init__(self, factory: LHTTPServerFactory, policy: AccessPolicy, websocket: IResource) -> None:
        """
        :param factory: makes the WebSockets of the server, among which streams count.
        :param policy: who may come in.
        :param websocket: what answers opening handshakes of WebSockets on the same path.
        """
        streams = Streams(factory)
        super().__init__(streams, policy, websocket)
        self.putChild(b"ticket", TicketResource(streams, policy, websocket))

    def render(self, request: Request) -> int | bytes:
        """Take over the connection and begin a stream, or answer with a status and a text that says why not."""
        if request.getHeader(b"upgrade"):
            rendered: int | bytes = self.websocket.render(request)
            return rendered
        asked = self._begin(request)
        if not isinstance(asked, _Asked):
            return asked
        try:
            wish = self._wish(request, asked)
            admission = self._ask(request, asked, wish.ticket)
        except LHTTPError as error:
            return self._refuse(request, asked, error)
        if request.method == b"HEAD":
            admission.addCallback(lambda _: self._show_head(request, asked))
        else:
            admission.addCallback(self._open, request, asked, wish)
        admission.addErrback(self._not_admitted, request, asked)
        admission.addErrback(lambda failure: _log.failure("answering failed", failure))
        return NOT_DONE_YET

    def _wish(self, request: Request, asked: _Asked) -> Wish:
        if not isinstance(request.channel, HTTPChannel) or request.channel.transport is None:
            raise Refused(505, "event streams are for HTTP/1.1")
        accept = (asked.header("accept") or "*/*").lower()
        if not any(found in accept for found in (STREAM_TYPE, "*/*", "text/*")):
            raise Refused(406, f"the response is {STREAM_TYPE}: allow it in the header Accept")
        wish = read_wish(asked.handshake.query, asked.header("last-event-id"), self._streams.engine.limits)
        wish.messages()
        self._streams.check_room()
        self._streams.check_ids(wish.channels)
        return wish

    def _show_head(self, request: Request, asked: _Asked) -> None:
        self._answer(request, 200, [*STREAM_HEADERS, *asked.headers], b"")
        request.finish()

    def _open(self, identity: Identity | None, request: Request, asked: _Asked, wish: Wish) -> None:
        factory = self._streams.factory
        channel: Any = request.channel
        if channel is None or channel.transport is None:  # the client left while an authenticator was asked
            return
        factory.check(asked.handshake, asked.place)  # others may have come meanwhile
        self._streams.check_room()
        shown = None
        if self._streams.engine.open_steps:
            certificate = certificate_of(request.transport) if request.isSecure() else None
            handshake = asked.handshake
            shown = Shown(handshake.path, handshake.query, handshake.headers, certificate)
        stream = EventStream(self._streams, wish, tuple(asked.headers), asked.header("accept") or "")
        channel.clearLineBuffer()
        channel._dataBuffer = []
        hand_over(channel, stream)
        stream.open(identity, shown)


class TicketResource(_AskedResource):
    """``POST /events/ticket``: a one-time ticket for a client that has logged in with a header or a cookie."""

    isLeaf = True
    _method = b"POST"

    def render(self, request: Request) -> int | bytes:
        """Answer with 200 and JSON, or with a status and a text that says why not."""
        if request.getHeader(b"upgrade"):
            rendered: int | bytes = self.websocket.render(request)
            return rendered
        asked = self._begin(request)
        if not isinstance(asked, _Asked):
            return asked
        try:
            if self._gate is None:
                raise Refused(404, "this server has no logins: streams need no ticket")
            admission = self._ask(request, asked)
        except LHTTPError as error:
            return self._refuse(request, asked, error)
        admission.addCallback(self._issue, request, asked)
        admission.addErrback(self._not_admitted, request, asked)
        admission.addErrback(lambda failure: _log.failure("answering failed", failure))
        return NOT_DONE_YET

    def _issue(self, identity: Identity | None, request: Request, asked: _Asked) -> None:
        if identity is None or not identity.authenticated:
            raise Refused(401, "log in with a header or a cookie to get a ticket")
        told = {"ticket": self._streams.tickets.issue(identity), "expires_in": int(LIFETIME)}
        headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"), *asked.headers)
        request.write(self._answer(request, 200, headers, json.dumps(told).encode("ascii") + b"\n"))
        request.finish()
