"""
Answers the admin side's questions about the connections and channels of a node.

A private part of :mod:`lhttp_tx.cluster.orders`. A list is read in pages. A page has the entries whose names follow
``after`` in order, at most ``limit``. Questions change nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from heapq import nsmallest
from itertools import chain
from math import ceil
from operator import itemgetter
from typing import Any, Final

from lhttp_tx.cluster.directory import SessionDirectory
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.state import State
from lhttp_tx.identity import Identity
from lhttp_tx.rules.muting import Mutes
from lhttp_tx.rules.patterns import PatternIndex, split_pattern

__all__ = ["Listing", "codec_of", "kind_of", "stage_of"]

_SHOWN_CHANNELS: Final = 50
"""The most channels of each connection in a list."""

_ALL_CHANNELS: Final = 1_000
"""The most channels in the details of one connection."""

_SHOWN_CLAIMS: Final = 50
"""The most names of claims in the details of one connection."""

_STATES: Final = {State.IDLE: "idle", State.BUSY: "busy", State.FINISHING: "finishing", State.SETTLING: "finishing"}
"""The words for states of sessions. All other states are ``closing``."""

_CODECS: Final = frozenset({"lhttp", "lhttp.json", "lhttp.protobuf"})
_TRANSPORTS: Final = {"LHTTPServerProtocol": "websocket", "CountedProtocol": "websocket"}
"""The words for transports, by the names of their classes. Others have a class attribute ``kind``."""

Order = dict[str, Any]


def kind_of(transport: Any) -> str:
    """Return the kind of a transport, such as ``websocket``."""
    name = type(transport).__name__
    return _TRANSPORTS.get(name) or str(getattr(type(transport), "kind", "other"))


def codec_of(transport: Any) -> str:
    """Return the subprotocol of a transport's messages, such as ``lhttp.json``; ``lhttp`` if it has none."""
    codec = getattr(transport, "websocket_protocol_in_use", None)
    return codec if codec in _CODECS else "lhttp"


def stage_of(session: Session) -> str:
    """Return the state of a session: ``idle``, ``busy``, ``finishing`` or ``closing``."""
    return _STATES.get(session.stage, "closing")


class Listing:
    """
    Answers questions about the connections and channels of this node.

    :ivar questions: the functions that answer, by the value of ``do`` in the question.
    """

    def __init__(
        self, engine: Engine, sessions: SessionDirectory, name_of: Callable[[Identity], str | None], mutes: Mutes
    ) -> None:
        """
        :param engine: the engine of this node.
        :param sessions: finds connections.
        :param name_of: returns the name of a client's user; ``None`` if the client is anonymous.
        :param mutes: who is muted.
        """
        self._mutes = mutes
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
        """Return a page of channels that match ``patterns``, each with the number of its subscribers here."""
        patterns = PatternIndex([split_pattern(pattern) for pattern in order["patterns"]])
        names = (
            (name, count)
            for name, count in self._engine.hub.channels.items()
            if name > order["after"] and not name.startswith("$") and patterns.matching(name.split("."))
        )
        return [list(found) for found in nsmallest(order["limit"], names)]

    def connection_page(self, order: Order) -> list[dict[str, Any]]:
        """
        Return a page of connections: all, or those of ``user``, with the id ``connection``, or subscribed to
        ``channel``.
        """
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
        """
        Return the details of the connection with the id ``connection``; an empty list if this node does not have it.
        """
        return [
            {
                **self._told(session, _ALL_CHANNELS),
                "transport": kind_of(session._transport),
                "codec": codec_of(session._transport),
                "state": stage_of(session),
                "queued_bytes": getattr(session, "waiting", (0, 0))[1],
                "expires": session.identity.expires,
                "claims": nsmallest(_SHOWN_CLAIMS, map(str, session.identity.claims)),
                "muted": ceil(self._mutes.left(session)),
                "user_muted": ceil(self._mutes.left_of_user(self._name_of(session.identity))),
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
        """Return a page of users, each with the number of connections."""
        counts: Counter[str] = Counter()
        for session in self._engine.sessions:
            name = None if session.closed else self._name_of(session.identity)
            if name is not None and name > order["after"]:
                counts[name] += 1
        return [list(found) for found in nsmallest(order["limit"], counts.items())]

    def info(self, order: Order) -> dict[str, int]:
        """Return the numbers of connections, users, channels and subscriptions of this node."""
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
        Return users, connections and channels whose names contain ``text``. Upper and lower case count as equal. Each
        is a list of kind, name, and the number of connections or subscribers. Connections are also found by their
        addresses, and have the address as a fourth item.

        ``kinds`` lists what to search: ``user``, ``connection`` and ``channel``. Channels must match one of
        ``patterns``. The answer has at most ``limit`` of each kind.
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
