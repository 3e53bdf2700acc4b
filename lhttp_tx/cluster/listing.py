"""
What a node tells the admin side about its connections and channels.

A private part of :mod:`lhttp_tx.cluster.orders`. Lists come page by page: what is behind ``after``, in order, at most
``limit``. Nothing here changes anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from heapq import nsmallest
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from lhttp_tx.cluster.directory import SessionDirectory
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.state import State
from lhttp_tx.identity import Identity
from lhttp_tx.rules.patterns import PatternIndex, split_pattern

__all__ = ["Listing", "codec_of", "kind_of", "stage_of"]

_SHOWN_CHANNELS: Final = 50
"""The most channels that a list tells of one connection."""

_ALL_CHANNELS: Final = 1_000
"""The most channels that are told of the one connection that is asked about."""

_SHOWN_CLAIMS: Final = 50
"""The most names of claims that are told of it."""

_STATES: Final = {State.IDLE: "idle", State.BUSY: "busy", State.FINISHING: "finishing", State.SETTLING: "finishing"}
"""The states of sessions whose clients are served. All others count as closing."""

_CODECS: Final = frozenset({"lhttp", "lhttp.json", "lhttp.protobuf"})
_TRANSPORTS: Final = {"LHTTPServerProtocol": "websocket", "CountedProtocol": "websocket"}
"""Names of transports, by their classes. Others are named by their attribute ``kind``."""

Order = dict[str, Any]


def kind_of(transport: Any) -> str:
    """Return the kind of a transport, such as ``websocket``."""
    name = type(transport).__name__
    return _TRANSPORTS.get(name) or str(getattr(type(transport), "kind", "other"))


def codec_of(transport: Any) -> str:
    """Return the form of a transport's messages, such as ``lhttp.json``."""
    codec = getattr(transport, "websocket_protocol_in_use", None)
    return codec if codec in _CODECS else "lhttp"


def stage_of(session: Session) -> str:
    """Return the state of a session, in one word."""
    return _STATES.get(session.stage, "closing")


class Listing:
    """
    Answers questions about the connections and channels of this node.

    :ivar questions: what answers, by the key ``do`` of the question.
    """

    def __init__(self, engine: Engine, sessions: SessionDirectory, name_of: Callable[[Identity], str | None]) -> None:
        """
        :param engine: the server.
        :param sessions: finds connections.
        :param name_of: returns the name of a client's user.
        """
        self._engine = engine
        self._sessions = sessions
        self._name_of = name_of
        self.questions: dict[str, Callable[[Order], Any]] = {
            "channel_page": self.channel_page,
            "connection_page": self.connection_page,
            "connection": self.connection,
            "user_page": self.user_page,
            "info": self.info,
            "search": self.search,
        }

    def channel_page(self, order: Order) -> list[list[Any]]:
        """Return channels that match ``patterns``, each with the number of its subscribers."""
        patterns = PatternIndex([split_pattern(pattern) for pattern in order["patterns"]])
        names = (
            (name, count)
            for name, count in self._engine.hub.channels.items()
            if name > order["after"] and not name.startswith("$") and patterns.matching(name.split("."))
        )
        return [list(found) for found in nsmallest(order["limit"], names)]

    def connection_page(self, order: Order) -> list[dict[str, Any]]:
        """Return connections: all, or those of ``user``, with the id ``connection``, or subscribed to ``channel``."""
        channel = order.get("channel")
        if channel is None:
            among = self._sessions.find(order.get("user"), order.get("connection"))
        else:
            among = [found for found in self._engine.hub.subscribers(channel) if isinstance(found, Session)]
        user = order.get("user")
        found = (
            (session.identity.connection_id, session)
            for session in among
            if not session.closed and (channel is None or user is None or self._name_of(session.identity) == user)
        )
        page = nsmallest(order["limit"], (pair for pair in found if pair[0] > order["after"]), key=itemgetter(0))
        return [self._told(session, _SHOWN_CHANNELS) for _, session in page]

    def connection(self, order: Order) -> list[dict[str, Any]]:
        """Return all about the connection with the id ``connection``; nothing if this node does not have it."""
        return [
            {
                **self._told(session, _ALL_CHANNELS),
                "transport": kind_of(session._transport),
                "codec": codec_of(session._transport),
                "state": stage_of(session),
                "queued_bytes": getattr(session, "waiting", (0, 0))[1],
                "expires": session.identity.expires,
                "claims": nsmallest(_SHOWN_CLAIMS, map(str, session.identity.claims)),
            }
            for session in self._sessions.find(None, order["connection"])
            if not session.closed
        ]

    def _told(self, session: Session, most: int) -> dict[str, Any]:
        identity = session.identity
        waiting = getattr(session, "waiting", (0, 0))
        return {
            "connection": identity.connection_id,
            "user": self._name_of(identity),
            "address": session.peer,
            "channels": nsmallest(most, session.channels),
            "subscriptions": len(session.channels),
            "queued": waiting[0],
            "unsent": session.unsent,
        }

    def user_page(self, order: Order) -> list[list[Any]]:
        """Return users, each with the number of connections."""
        counts: Counter[str] = Counter()
        for session in self._engine.sessions:
            name = None if session.closed else self._name_of(session.identity)
            if name is not None and name > order["after"]:
                counts[name] += 1
        return [list(found) for found in nsmallest(order["limit"], counts.items())]

    def info(self, order: Order) -> dict[str, int]:
        """Return how many there are."""
        channels = self._engine.hub.channels
        here = [session for session in self._engine.sessions if not session.closed]
        return {
            "connections": len(here),
            "users": len({self._name_of(session.identity) for session in here} - {None}),
            "channels": len(channels),
            "subscriptions": sum(channels.values()),
        }

    def search(self, order: Order) -> list[list[Any]]:
        """
        Return what has ``text`` in its name, whatever the case: kind, name, and the number of its subscribers or
        connections. Connections are found by their addresses, too, which come fourth.

        ``kinds`` are those to look at, of ``user``, ``connection`` and ``channel``; ``patterns`` those that channels
        have to match. At most ``limit`` of each kind.
        """
        text, kinds = order["text"].casefold(), order["kinds"]
        searches: tuple[tuple[str, Iterable[tuple[Any, ...]]], ...] = (
            ("user", self._users(text) if "user" in kinds else ()),
            ("connection", self._connections(text) if "connection" in kinds else ()),
            ("channel", self._channels(text, order["patterns"]) if "channel" in kinds else ()),
        )
        pages = ([[kind, *pair] for pair in nsmallest(order["limit"], found)] for kind, found in searches)
        return list(chain.from_iterable(pages))

    def _users(self, text: str) -> list[tuple[str, int]]:
        names = (self._name_of(session.identity) for session in self._engine.sessions if not session.closed)
        return list(Counter(name for name in names if name is not None and text in name.casefold()).items())

    def _connections(self, text: str) -> Iterator[tuple[str, int, str]]:
        for session in self._engine.sessions:
            name = session.identity.connection_id
            if not session.closed and (text in name.casefold() or text in session.peer.casefold()):
                yield name, 1, session.peer

    def _channels(self, text: str, patterns: list[str]) -> Iterator[tuple[str, int]]:
        index = PatternIndex([split_pattern(pattern) for pattern in patterns])
        for name, count in self._engine.hub.channels.items():
            if text in name.casefold() and not name.startswith("$") and index.matching(name.split(".")):
                yield name, count
