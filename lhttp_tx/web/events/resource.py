"""
``GET /events`` and ``POST /events/ticket``.

The access rules are those of the WebSocket: a client that may not open one gets no stream either. Source: the protocol
document, section "Event streams".
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request

from lhttp_tx.errors import LHTTPError, Refused
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.identity import Identity
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.web.answers import STREAM_HEADERS, STREAM_TYPE, Pairs
from lhttp_tx.web.asking import Asked, AskedResource
from lhttp_tx.web.events.answers import refusal
from lhttp_tx.web.events.query import Wish, read_wish
from lhttp_tx.web.events.stream import EventStream
from lhttp_tx.web.events.streams import Streams
from lhttp_tx.web.events.tickets import LIFETIME
from lhttp_tx.web.websocket import hand_over

__all__ = ["EventsResource", "TicketResource"]

_log = RationedLogger(__name__)


class _StreamResource(AskedResource):
    """The base of the resources for clients that only receive."""

    def __init__(self, streams: Streams, policy: AccessPolicy, websocket: IResource) -> None:
        """
        :param streams: the streams of the server.
        :param policy: the access rules.
        :param websocket: answers opening handshakes of WebSockets on the same path.
        """
        super().__init__(streams.factory, policy, websocket)
        self._streams = streams

    def _refusal(self, status: int, reason: str, headers: Pairs, asked: Asked) -> tuple[int, Pairs, bytes]:
        return refusal(status, reason, headers, asked.header("accept") or "")

    def _leave(self, request: Request) -> int | bytes:
        """
        Refuse a client because the server is stopping.

        An ``EventSource`` gets no answer. It then reconnects, to another node or after the restart.
        """
        channel: Any = request.channel
        if STREAM_TYPE.encode("ascii") in (request.getHeader(b"accept") or b"").lower():
            channel.transport.abortConnection()
            return NOT_DONE_YET
        return super()._leave(request)

    def _identify(self, request: Request, asked: Asked, ticket: str | None = None) -> Deferred[Identity | None]:
        """
        Authenticate the client while it waits.

        :returns: a Deferred that

            - succeeds with the identity, or with ``None`` if there are no authenticators and only the address is known;
            - fails with :exc:`~lhttp_tx.errors.Refused`.
        """
        gate = self._factory.gate
        attempt = asked.attempt()
        parameters = attempt.parameters
        if gate is None:
            return succeed(self._nobody(attempt))
        if ticket is not None:
            identity = self._streams.tickets.redeem(ticket)
            kept = {name: value for name, value in parameters.items() if name not in {"ticket", *gate.secrets}}
            return succeed(replace(identity, connection_id=attempt.connection_id, address=asked.peer, parameters=kept))
        return self._ask(request, attempt).addCallback(_known)


def _known(identity: Identity | None) -> Identity:
    if identity is None:
        raise Refused(401, "log in with a header, a cookie or a ticket: an event stream accepts no login message")
    return identity


class EventsResource(_StreamResource):
    """``GET /events``: an event stream. Its child ``ticket`` is :class:`TicketResource`."""

    def __init__(self, factory: LHTTPServerFactory, policy: AccessPolicy, websocket: IResource) -> None:
        """
        :param factory: makes the WebSockets of the server, among which streams count.
        :param policy: the access rules.
        :param websocket: answers opening handshakes of WebSockets on the same path.
        """
        streams = Streams(factory)
        super().__init__(streams, policy, websocket)
        self.putChild(b"ticket", TicketResource(streams, policy, websocket))

    def render(self, request: Request) -> int | bytes:
        """Take over the connection and begin a stream, or refuse with a status and a text that gives the reason."""
        if request.getHeader(b"upgrade"):
            rendered: int | bytes = self.websocket.render(request)
            return rendered
        asked = self._begin(request)
        if not isinstance(asked, Asked):
            return asked
        try:
            wish = self._wish(request, asked)
            admission = self._identify(request, asked, wish.ticket)
        except LHTTPError as error:
            return self._refuse(request, asked, error)
        if request.method == b"HEAD":
            admission.addCallback(lambda _: self._show_head(request, asked))
        else:
            admission.addCallback(self._open, request, asked, wish)
        admission.addErrback(self._failed, request, asked)
        admission.addErrback(lambda failure: _log.failure("answering failed", failure))
        return NOT_DONE_YET

    def _wish(self, request: Request, asked: Asked) -> Wish:
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

    def _show_head(self, request: Request, asked: Asked) -> None:
        self._answer(request, 200, [*STREAM_HEADERS, *asked.headers], b"")
        request.finish()

    def _open(self, identity: Identity | None, request: Request, asked: Asked, wish: Wish) -> None:
        channel: Any = request.channel
        if channel is None or channel.transport is None:  # the client left while an authenticator was asked
            return
        self._factory.check(asked.handshake, asked.place)  # others may have come meanwhile
        self._streams.check_room()
        shown = asked.shown(bool(self._streams.engine.open_steps))
        stream = EventStream(self._streams, wish, tuple(asked.headers), asked.header("accept") or "")
        channel.clearLineBuffer()
        channel._dataBuffer = []
        hand_over(channel, stream)
        stream.open(identity, shown)


class TicketResource(_StreamResource):
    """``POST /events/ticket``: a one-time ticket for a client that has logged in with a header or a cookie."""

    isLeaf = True
    _methods = ("POST",)

    def render(self, request: Request) -> int | bytes:
        """Answer with 200 and JSON, or refuse with a status and a text that gives the reason."""
        if request.getHeader(b"upgrade"):
            rendered: int | bytes = self.websocket.render(request)
            return rendered
        asked = self._begin(request)
        if not isinstance(asked, Asked):
            return asked
        try:
            if self._factory.gate is None:
                raise Refused(404, "this server has no logins: streams need no ticket")
            admission = self._identify(request, asked)
        except LHTTPError as error:
            return self._refuse(request, asked, error)
        admission.addCallback(self._issue, request, asked)
        admission.addErrback(self._failed, request, asked)
        admission.addErrback(lambda failure: _log.failure("answering failed", failure))
        return NOT_DONE_YET

    def _issue(self, identity: Identity | None, request: Request, asked: Asked) -> None:
        if identity is None or not identity.authenticated:
            raise Refused(401, "log in with a header or a cookie to get a ticket")
        told = {"ticket": self._streams.tickets.issue(identity), "expires_in": int(LIFETIME)}
        headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"), *asked.headers)
        request.write(self._answer(request, 200, headers, json.dumps(told).encode("ascii") + b"\n"))
        request.finish()
