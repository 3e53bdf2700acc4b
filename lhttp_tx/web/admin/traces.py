"""
Live traces: messages of a user, a connection, a channel or a command, as they pass this node.

The admin side asks repeatedly for new messages. A trace begins with the first request, and ends when no request has
come for some time. Only while there is a trace, :mod:`lhttp_tx.web.admin.taps` listens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from lhttp_tx.codec.limits import UNLIMITED
from lhttp_tx.codec.message import parse
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.errors import LHTTPError
from lhttp_tx.identity import Identity
from lhttp_tx.web.admin.taps import Taps

__all__ = ["KINDS", "LIFETIME", "MAX_BODY", "MAX_BYTES", "MAX_KEPT", "MAX_RATE", "MAX_TRACES", "Traces"]

_log = Logger()

KINDS: Final = ("user", "connection", "channel", "command")
"""The things that a trace may follow."""

MAX_TRACES: Final = 4
"""The most traces of a node at one time."""

MAX_RATE: Final = 100
"""The most messages of a trace in a second. Others are only counted."""

MAX_BYTES: Final = 262_144
"""The most bytes of messages that a trace looks at in a second. Others are only counted."""

MAX_KEPT: Final = 500
"""The most messages that wait for the next request. Beyond that, the oldest are dropped and counted."""

MAX_BODY: Final = 2_000
"""The most bytes of a body that are shown."""

LIFETIME: Final = 15.0
"""Seconds after the last request after which a trace ends."""

_MAX_ANSWER: Final = 200
"""The most messages of one answer."""

_MAX_PARSED: Final = 128
"""
The most headers of a message that is looked at, or as many as a client may send. Reading thousands of empty
headers for each trace would cost much more than refusing them.
"""

_MAX_HEADERS: Final = 30
_MAX_VALUE: Final = 300
_HIDDEN: Final = [("(hidden)", "this command holds secrets")]

Order = dict[str, Any]


@dataclass(slots=True)
class _Trace:
    """
    One trace.

    :ivar kind: one of :data:`KINDS`.
    :ivar name: the user, connection, channel or command that it follows.
    :ivar has_bodies: whether bodies are kept.
    :ivar sessions: the sessions whose messages it follows.
    """

    kind: str
    name: str
    has_bodies: bool
    messages: deque[dict[str, Any]] = field(default_factory=deque)
    sessions: set[Conversation] = field(default_factory=set)
    number: int = 0
    dropped: int = 0
    second: int = -1
    count: int = 0
    size: int = 0
    end: IDelayedCall | None = None

    def admits(self, now: float, size: int) -> bool:
        """Return whether the trace may look at one more message in this second. If not, count the message."""
        if int(now) != self.second:
            self.second, self.count, self.size = int(now), 0, 0
        if self.count >= MAX_RATE or (self.count and self.size + size > MAX_BYTES):
            self.dropped += 1
            return False
        self.count += 1
        self.size += size
        return True

    def keep(self, message: dict[str, Any]) -> None:
        """Keep a message until the next request."""
        if len(self.messages) >= MAX_KEPT:
            self.messages.popleft()
            self.dropped += 1
        self.number += 1
        message["number"] = self.number
        self.messages.append(message)


class Traces(SessionWatcher):
    """The traces of a node. Without a trace, this object gets no calls for messages."""

    def __init__(
        self,
        engine: Engine,
        node: Callable[[], str],
        now: Callable[[], float],
        name_of: Callable[[Identity], str | None],
    ) -> None:
        """
        :param engine: the engine.
        :param node: returns the name of this node.
        :param now: returns the time in seconds since 1970.
        :param name_of: returns the name of a client's user.
        """
        self._engine = engine
        self._node = node
        self._now = now
        self._name_of = name_of
        self._traces: dict[str, _Trace] = {}
        self._taps = Taps(engine.hub, self)
        self._limits = replace(UNLIMITED, header_count=max(_MAX_PARSED, engine.limits.header_count))

    def __len__(self) -> int:
        """Return the number of traces."""
        return len(self._traces)

    def ask(self, order: Order) -> dict[str, Any]:
        """
        Return the new messages of a trace. Begin the trace if it does not exist yet.

        :param order: ``trace``, an id; ``kind``, ``name`` and ``bodies``, which say what to follow; ``after``, the
            number of the last message that the caller knows, by the names of nodes; ``key``, the name of the caller's
            key; ``stop``, whether the trace ends now.
        """
        trace_id = f"{order['key']} {order['trace']}"
        if order["stop"]:
            self._finish(trace_id)
            return {"number": 0, "dropped": 0, "messages": []}
        trace = self._traces.get(trace_id)
        if trace is None or (trace.kind, trace.name, trace.has_bodies) != (
            order["kind"],
            order["name"],
            order["bodies"],
        ):
            if trace is None and len(self._traces) >= MAX_TRACES:
                return {"number": 0, "dropped": 0, "messages": [], "full": True}
            trace = self._begin(trace_id, order)
        if trace.end is not None:
            trace.end.reset(LIFETIME)
        after = order["after"].get(self._node(), 0)
        while trace.messages and trace.messages[0]["number"] <= after <= trace.number:
            trace.messages.popleft()
        messages = [message for message, _ in zip(trace.messages, range(_MAX_ANSWER), strict=False)]
        return {
            "number": messages[-1]["number"] if messages else trace.number,
            "dropped": trace.dropped,
            "messages": messages,
        }

    def stop(self) -> None:
        """End all traces."""
        for trace_id in tuple(self._traces):
            self._finish(trace_id)

    def _begin(self, trace_id: str, order: Order) -> _Trace:
        self._finish(trace_id)
        trace = _Trace(order["kind"], order["name"], order["bodies"])
        trace.sessions = {
            session for session in self._engine.sessions if not session.closed and self._follows(trace, session)
        }
        self._traces[trace_id] = trace
        trace.end = self._engine.clock.callLater(LIFETIME, self._finish, trace_id)
        _log.info(
            "admin: the key {key} begins to trace the {kind} {name!r}{bodies}",
            key=order["key"],
            kind=trace.kind,
            name=trace.name,
            bodies=", with bodies" if trace.has_bodies else "",
            event="admin.trace",
        )
        self._listen()
        return trace

    def _finish(self, trace_id: str) -> None:
        trace = self._traces.pop(trace_id, None)
        if trace is not None:
            if trace.end is not None and trace.end.active():
                trace.end.cancel()
            self._listen()

    def _listen(self) -> None:
        """Listen to the sessions and the hub that the traces follow, and to nothing else."""
        watchers = self._engine.watchers
        if self._traces and self not in watchers:
            watchers.append(self)
        elif not self._traces and self in watchers:
            watchers.remove(self)
        sessions: set[Conversation] = set()
        self._taps.listen(
            sessions.union(*(trace.sessions for trace in self._traces.values())), to_hub=bool(self._traces)
        )

    def _follows(self, trace: _Trace, session: Session) -> bool:
        """Return whether a trace follows the messages of *session*."""
        if trace.kind == "user":
            return trace.name == self._name_of(session.identity)
        return trace.kind == "command" or (trace.kind == "connection" and trace.name == session.identity.connection_id)

    # See SessionWatcher

    def session_opened(self, session: Session) -> None:
        """Add a session to the traces that follow it."""
        for trace in self._traces.values():
            if isinstance(session, Conversation) and self._follows(trace, session):
                trace.sessions.add(session)
                self._taps.add(session)

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        """Update the traces that follow a session, because its user has changed."""
        if not session.closed:
            self.session_closed(session)
            self.session_opened(session)

    def session_closed(self, session: Session) -> None:
        """Remove a session from all traces."""
        if isinstance(session, Conversation):
            for trace in self._traces.values():
                trace.sessions.discard(session)
            self._taps.drop(session)

    # See Ear

    def received(self, session: Conversation, data: bytes) -> None:
        """Take a message of a client."""
        self._take(self._followers(session), "in", data, session=session)

    def sent(self, session: Conversation, data: bytes) -> None:
        """Take a message to a client."""
        self._take(self._followers(session), "out", data, session=session)

    def published(self, channels: tuple[str, ...], data: bytes) -> None:
        """Take a publication."""
        traces = [trace for trace in self._traces.values() if trace.kind == "channel" and trace.name in channels]
        self._take(traces, "publish", data, channel=" ".join(channels[:10]))

    def delivering(self, channel: str, payloads: list[bytes], members: Any) -> None:
        """Take publications on their way to subscribers."""
        for trace in self._traces.values():
            if trace.kind == "channel":
                if trace.name == channel:
                    self._take_all([trace], payloads, channel=channel, count=len(members))
            elif trace.kind == "command":
                self._take_all([trace], payloads, channel=channel, count=len(members))
            else:
                for session in trace.sessions:
                    if session in members:
                        self._take_all([trace], payloads, channel=channel, session=session)

    def _followers(self, session: Conversation) -> list[_Trace]:
        return [trace for trace in self._traces.values() if session in trace.sessions]

    def _take_all(self, traces: list[_Trace], payloads: Iterable[bytes], **details: Any) -> None:
        for payload in payloads:
            self._take(traces, "deliver", payload, **details)

    def _take(self, traces: list[_Trace], direction: str, data: bytes, **details: Any) -> None:
        for trace in traces:
            if trace.kind == "command" and not data.startswith(b"LHTTP/1.0 " + trace.name.encode() + b"\r"):
                continue
            if trace.admits(self._engine.clock.seconds(), len(data)):
                trace.keep(self._told(trace, direction, data, **details))

    def _told(
        self,
        trace: _Trace,
        direction: str,
        data: bytes,
        *,
        session: Conversation | None = None,
        channel: str | None = None,
        count: int | None = None,
    ) -> dict[str, Any]:
        told: dict[str, Any] = {"time": self._now(), "direction": direction, "size": len(data)}
        if session is not None:
            told["connection"] = session.identity.connection_id
            told["user"] = self._name_of(session.identity)
        if channel is not None:
            told["channel"] = channel
        if count is not None:
            told["count"] = count
        try:
            message = parse(data, binary=True, limits=self._limits)
        except LHTTPError as error:
            return {**told, "command": "", "headers": [], "problem": error.reason[:_MAX_VALUE]}
        told["command"] = message.command
        if message.command in self._engine._private_commands:
            return {**told, "headers": [list(pair) for pair in _HIDDEN], "body_size": len(message.body)}
        told["headers"] = [[name[:_MAX_VALUE], value[:_MAX_VALUE]] for name, value in message.headers][:_MAX_HEADERS]
        told["body_size"] = len(message.body)
        if trace.has_bodies:
            told["body"] = message.body[:MAX_BODY].decode("utf-8", "replace")
        return told
