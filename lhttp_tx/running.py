"""
The servers that run in this process, for code that has no reference to one.

Only the functions here read it; :mod:`lhttp_tx.service` writes it. Nothing else depends on it, so two servers fit in
one process.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred

from lhttp_tx.community import Community
from lhttp_tx.control import Control
from lhttp_tx.engine import Engine
from lhttp_tx.message import HeaderPairs
from lhttp_tx.presence import Presence

__all__ = ["add", "control", "discard", "presence", "publish"]

_engines: list[Engine] = []
_communities: dict[Engine, Community] = {}


def add(engine: Engine, community: Community | None = None) -> None:
    """Let the functions here find *engine*, and what belongs to it."""
    _engines.append(engine)
    if community is not None:
        _communities[engine] = community


def discard(engine: Engine) -> None:
    """Let them find *engine* no more."""
    if engine in _engines:
        _engines.remove(engine)
    _communities.pop(engine, None)


def control() -> Control:
    """
    Return the control over the connections of the running server, and of its cluster.

    :raises RuntimeError: unless exactly one server runs in this process; with several, use ``service.control``.
    """
    return _communities[_the_engine("use service.control of the one you mean")].control


def presence() -> Presence:
    """
    Return who is in the channels of the running server, as far as that is kept.

    :raises RuntimeError: unless exactly one server runs in this process; with several, use ``service.presence``.
    """
    return _communities[_the_engine("use service.presence of the one you mean")].presence


def publish(
    channels: str | Iterable[str],
    command: str,
    headers: HeaderPairs | dict[str, str] = (),
    body: bytes | str = b"",
    *,
    binary: bool = False,
) -> Deferred[None]:
    """
    Publish from anywhere in the process of a running server: ``await lhttp_tx.publish("room", "chat", body="hello")``.

    :param channels: a channel name, or several.
    :param command: the command of the message.
    :param headers: pairs of name and value, or a dict of them.
    :param body: the body; a str is sent as UTF-8.
    :param binary: whether it travels as a binary WebSocket message.
    :returns: a Deferred that

        - succeeds when the bus has it: in a cluster, one round trip to NATS later;
        - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it was not sent, or if it is not known whether it
          arrived.
    :raises RuntimeError: unless exactly one server runs in this process; with several, call
        ``service.engine.publish`` of the one you mean.
    :raises LocalProtocolError: if the message is not well-formed.
    :raises RemoteProtocolError: if a channel name is malformed or reserved.
    """
    if not _engines:
        raise RuntimeError(
            "no LHTTP server runs in this process: start an LHTTPService first, or use lhttp_tx.post_message"
        )
    engine = _the_engine("call service.engine.publish of the one you mean")
    return engine.publish(channels, command, headers, body, binary=binary)


def _the_engine(advice: str) -> Engine:
    if not _engines:
        raise RuntimeError("no LHTTP server runs in this process: start an LHTTPService first")
    if len(_engines) > 1:
        raise RuntimeError(f"several LHTTP servers run in this process: {advice}")
    return _engines[0]
