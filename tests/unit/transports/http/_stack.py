"""A node in memory with clients that come with requests."""

from __future__ import annotations

import json
from typing import Any

import txaio
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError
from lhttp_tx.guard.admission import Admission, Seat
from lhttp_tx.testing import Server
from lhttp_tx.transports.http.bodies import read_body
from lhttp_tx.transports.http.outlet import Fetched
from lhttp_tx.transports.http.session import HTTPSession
from lhttp_tx.transports.http.sessions import Sessions
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory

__all__ = ["Node", "outcome", "texts"]


def outcome(deferred: Deferred[Any]) -> Any:
    """Return the result of a Deferred, the status that it is refused with, or ``None`` if it waits."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    if found and isinstance(found[0], Failure):
        error = found[0].value
        assert isinstance(error, LHTTPError), found[0]
        return error.status
    return found[0] if found else None


def texts(fetched: Fetched) -> list[str]:
    """Return the messages of an answer."""
    return [json.loads(entry) for entry in fetched.entries]


class Node:
    """
    A server without sockets.

    :ivar server: its parts.
    :ivar sessions: its sessions.
    """

    def __init__(self, *, name: str | None = None, beside: Node | None = None, **settings: Any) -> None:
        """:param settings: for :class:`~lhttp_tx.testing.Server`."""
        self.clock = Clock() if beside is None else beside.clock
        txaio.config.loop = self.clock
        settings |= {"clock": self.clock} if beside is None else {"beside": beside.server}
        self.server = Server(**settings)
        self.admission = Admission(self.clock)
        self.factory = LHTTPServerFactory(
            engine=self.server.engine, reactor=self.clock, gate=self.server.assembly.gate, admission=self.admission
        )
        self.sessions = Sessions(self.factory, name or self.server.assembly.nodes.name)

    def begin(self, form: str = "lhttp", **login: Any) -> HTTPSession:
        """Return the session of a new client."""
        place = self.admission.enter(None)
        session = self.sessions.begin("tcp4:192.0.2.1:1", Seat(place), form)
        place.leave()
        session.open(login.get("identity"), login.get("attempt"), None)
        return session

    def send(self, session: HTTPSession, *messages: Message | bytes, number: int | None = None) -> Any:
        """Send messages, and return the outcome."""
        raw = [message.raw if isinstance(message, Message) else message for message in messages]
        body = b"".join(b"%d\n%b" % (len(message), message) for message in raw)
        return outcome(session.take(read_body(body, "", self.server.engine.limits), number, len(body), 0))

    def subscribe(self, session: HTTPSession, channel: str) -> None:
        """Subscribe a client."""
        self.send(session, Message("x", [("subscribe", channel)]))

    def publish(self, channel: str, body: str) -> None:
        """Publish a message."""
        self.server.engine.publish(channel, "chat", (), body)

    def fetch(self, session: HTTPSession, after: int = 0, wait: float = 0.0, name: str = "f", **options: Any) -> Any:
        """Fetch messages; return a Deferred."""
        given = {"most": 10_000, "begins": True} | options
        return session.fetch(name, after, wait=wait, **given)

    def turn(self) -> None:
        """Let a turn of the reactor pass."""
        self.clock.advance(0)
