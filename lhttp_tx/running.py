"""
The server as users' code sees it, and the list of the servers that run in this process.

The list is for code that has no reference to a server. Only the functions here read it, and :mod:`lhttp_tx.service`
writes it. Nothing else depends on it, so several servers can run in one process. In a test, a server of
:mod:`lhttp_tx.testing` replaces a running one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from lhttp_tx.cluster.control import Control
from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.cluster.presence import Presence
from lhttp_tx.codec.headers import HeaderPairs
from lhttp_tx.config import Config
from lhttp_tx.engine.engine import Engine
from lhttp_tx.interfaces import IServer

__all__ = ["RunningServer", "control", "presence", "publish"]


class Running(Protocol):
    """
    A server: :class:`lhttp_tx.assembly.Assembly`, or :class:`lhttp_tx.testing.Server`.
    """

    @property
    def engine(self) -> Engine:
        """Handles its messages."""

    @property
    def control(self) -> Control:
        """Control over its connections, and over those of its cluster."""

    @property
    def presence(self) -> Presence:
        """The people in the channels with presence."""


class Parts(Running, Protocol):
    """A server with everything that :class:`RunningServer` offers: :class:`lhttp_tx.assembly.Assembly`."""

    config: Config
    nodes: Nodes


@final
@implementer(IServer)
class RunningServer:
    """
    A server, as processors, filters, hooks and authenticators see it: ``request.server`` and ``session.server``.

    :ivar config: the settings.
    """

    __slots__ = ("_asked", "_parts", "config")

    def __init__(self, parts: Parts) -> None:
        """:param parts: the server."""
        self._parts = parts
        self._asked: set[str] = set()
        self.config = parts.config

    @property
    def name(self) -> str:
        """The name of this node in its cluster, new for each start of the process."""
        return self._parts.nodes.name

    @property
    def clock(self) -> Any:
        """
        The reactor, as :class:`~twisted.internet.interfaces.IReactorTime`; in a test, the clock of
        :mod:`lhttp_tx.testing`.
        """
        return self._parts.engine.clock

    @property
    def control(self) -> Control:
        """Control over the connections of this server, and of its cluster."""
        return self._parts.control

    @property
    def presence(self) -> Presence:
        """The people in the channels with presence."""
        return self._parts.presence

    def publish(
        self,
        channels: str | Iterable[str],
        command: str,
        headers: HeaderPairs | dict[str, str] = (),
        body: bytes | str = b"",
        *,
        binary: bool = False,
    ) -> Deferred[None]:
        """Publish a message on this server, even if others run in the process; see :func:`publish`."""
        return self._parts.engine.publish(channels, command, headers, body, binary=binary)

    def settings(self, name: str) -> Mapping[str, Any]:
        """
        Return the table ``[plugin.NAME]`` of the configuration file, or of ``Config(plugins=...)`` in an embedded
        server.

        :param name: the name of the table; by convention, the name of your package.
        :returns: the table as ``tomllib`` reads it; an empty mapping if there is none.
        """
        self._asked.add(name)
        return self.config.plugins.get(name, {})

    @property
    def unasked(self) -> tuple[str, ...]:
        """The names of plugin tables in the settings that no plugin has read yet."""
        return tuple(sorted(self.config.plugins.keys() - self._asked))

    def __repr__(self) -> str:
        return f"<RunningServer {self.name}>"


_servers: list[Running] = []
_standing_in: list[weakref.ref[Running]] = []

_NONE = "start an LHTTPService first"


def add(server: Running) -> None:
    """Let the functions here find *server*."""
    if server not in _servers:
        _servers.append(server)


def stand_in(server: Running | None) -> None:
    """
    Let the functions here find a test's server if no real server runs.

    It replaces the test server given before. This module forgets it when the last other reference to it is gone.

    :param server: the test server; ``None`` removes the one given before.
    """
    _standing_in[:] = [] if server is None else [weakref.ref(server)]


def discard(server: Running) -> None:
    """Stop the functions here from finding *server*."""
    if server in _servers:
        _servers.remove(server)


def control() -> Control:
    """
    Return the running server's control over its connections, and over those of its cluster.

    :raises RuntimeError: unless exactly one server runs in this process; with several, use ``service.control``.
    """
    return _the_server(_NONE, "use service.control of the one you mean").control


def presence() -> Presence:
    """
    Return the presence of the running server: the people in the channels with presence.

    :raises RuntimeError: unless exactly one server runs in this process; with several, use ``service.presence``.
    """
    return _the_server(_NONE, "use service.presence of the one you mean").presence


def publish(
    channels: str | Iterable[str],
    command: str,
    headers: HeaderPairs | dict[str, str] = (),
    body: bytes | str = b"",
    *,
    binary: bool = False,
) -> Deferred[None]:
    """
    Publish a message from any code in a server's process: ``await lhttp_tx.publish("room", "chat", body="hello")``.

    :param channels: a channel name, or several.
    :param command: the command of the message.
    :param headers: pairs of name and value, or a dict.
    :param body: the body; a str is sent as UTF-8.
    :param binary: whether to send it as a binary WebSocket message.
    :returns: a Deferred that

        - succeeds when the bus has the message; in a cluster, this takes one round trip to NATS;
        - fails with :exc:`lhttp_tx.errors.BusUnavailable` if the message was not sent, or may not have arrived.
    :raises RuntimeError: unless exactly one server runs in this process; with several, call ``service.engine.publish``
        of the server you mean.
    :raises LocalProtocolError: if the message is malformed, is larger than the bus takes, or has a private command; if
        a channel name is malformed or reserved; if there is no channel.
    """
    server = _the_server(
        "start an LHTTPService first, or use lhttp_tx.post_message", "call service.engine.publish of the one you mean"
    )
    return server.engine.publish(channels, command, headers, body, binary=binary)


def _the_server(none: str, several: str) -> Running:
    """
    Return the running server, or the test's server if none runs.

    :param none: the advice in the error's text if there is no server.
    :param several: the advice if there is more than one.
    """
    if len(_servers) > 1:
        raise RuntimeError(f"several LHTTP servers run in this process: {several}")
    if _servers:
        return _servers[0]
    server = _standing_in[0]() if _standing_in else None
    if server is None:
        raise RuntimeError(f"no LHTTP server runs in this process: {none}")
    return server
