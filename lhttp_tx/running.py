"""
The servers that run in this process, for code that has no reference to one.

Only :func:`publish` reads it; :mod:`lhttp_tx.service` writes it. Nothing else depends on it, so two servers fit in
one process.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred

from lhttp_tx.engine import Engine
from lhttp_tx.message import HeaderPairs

__all__ = ["add", "discard", "publish"]

_engines: list[Engine] = []


def add(engine: Engine) -> None:
    """Let :func:`publish` find *engine*."""
    _engines.append(engine)


def discard(engine: Engine) -> None:
    """Let :func:`publish` find *engine* no more."""
    if engine in _engines:
        _engines.remove(engine)


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

        - succeeds when the bus has taken it;
        - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it has not.
    :raises RuntimeError: unless exactly one server runs in this process; with several, call
        ``service.engine.publish`` of the one you mean.
    :raises LocalProtocolError: if the message is not well-formed.
    :raises RemoteProtocolError: if a channel name is malformed or reserved.
    """
    if len(_engines) != 1:
        raise RuntimeError(
            "several LHTTP servers run in this process: call service.engine.publish of the one you mean"
            if _engines
            else "no LHTTP server runs in this process: start an LHTTPService first, or use lhttp_tx.post_message"
        )
    return _engines[0].publish(channels, command, headers, body, binary=binary)
