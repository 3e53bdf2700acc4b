"""
A server, as its admin side sees it.

:class:`lhttp_tx.assembly.Assembly` has most of it. The service adds the number of pending connections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lhttp_tx.cluster.control import Control
from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.cluster.presence import Presence
from lhttp_tx.config import Config
from lhttp_tx.engine.engine import Engine
from lhttp_tx.history.archive import Archive
from lhttp_tx.interfaces import IBus, IHistoryStore
from lhttp_tx.observe.counters import Counters

__all__ = ["Managed", "Parts", "Siblings"]


class Kept(Protocol):
    """The histories of a server: :class:`lhttp_tx.assembly.histories.Histories`."""

    archive: Archive
    is_active: bool

    @property
    def available(self) -> bool:
        """Whether channels with history accept publications."""

    @property
    def store(self) -> IHistoryStore:
        """The store."""


class Community(Protocol):
    """Who is connected: :class:`lhttp_tx.cluster.members.Members`."""

    def has_presence(self, channel: str) -> bool:
        """Return whether the server keeps the presence of a channel."""


class Parts(Protocol):
    """The parts of a server: :class:`lhttp_tx.assembly.Assembly`."""

    bus: IBus
    config: Config
    control: Control
    counters: Counters | None
    engine: Engine
    histories: Any
    members: Any
    nodes: Nodes

    @property
    def presence(self) -> Presence:
        """Who is in the channels whose presence is kept."""


@dataclass(frozen=True, slots=True)
class Managed:
    """
    One server.

    :ivar parts: its parts.
    :ivar version: the version of the package.
    :ivar started: the time at which it was made, in seconds since 1970.
    :ivar count_pending: returns the number of connections that have not opened a WebSocket.
    """

    parts: Parts
    version: str
    started: float
    count_pending: Callable[[], int]

    @property
    def bus(self) -> IBus:
        """The bus."""
        return self.parts.bus

    @property
    def config(self) -> Config:
        """The settings."""
        return self.parts.config

    @property
    def control(self) -> Control:
        """Control over the connections of the cluster."""
        return self.parts.control

    @property
    def engine(self) -> Engine:
        """The engine."""
        return self.parts.engine

    @property
    def histories(self) -> Kept:
        """The histories."""
        found: Kept = self.parts.histories
        return found

    @property
    def members(self) -> Community:
        """Who is connected."""
        found: Community = self.parts.members
        return found

    @property
    def nodes(self) -> Nodes:
        """The other nodes."""
        return self.parts.nodes

    @property
    def presence(self) -> Presence:
        """Who is in the channels whose presence is kept."""
        return self.parts.presence

    @property
    def pending(self) -> int:
        """The number of connections that have not opened a WebSocket."""
        return self.count_pending()


@dataclass(frozen=True, slots=True)
class Siblings:
    """
    The workers of one supervisor, as one of them sees them.

    :ivar number: its own number, from 1 on.
    :ivar count: the number of workers.
    :ivar group: a text that only these workers share. A cluster may have workers of other supervisors, too.
    """

    number: int
    count: int
    group: str
