"""
Makes the errors that tell why a connection has ended or was refused, with the server's text in a limited length.

For WebSockets, and for :mod:`lhttp_tx.client.http`. Pure functions.
"""

from __future__ import annotations

import re

from lhttp_tx.client.errors import ConnectFailed, ConnectionLost, LoginFailed

__all__ = ["lost", "refused", "short"]

_RETRY_AFTER = re.compile(r"; retry-after=(\d{1,5}(?:\.\d{1,3})?)\Z", re.ASCII)
"""The end of a reason that asks the client to connect again within a number of seconds."""

_MAX_REASON_LENGTH = 200
"""The most characters of a server's reason for a close or a refusal that are passed on."""


def lost(code: int | None, reason: str, *, clean: bool, closed_by_us: bool) -> ConnectionLost:
    """
    Return the error for a connection that has ended.

    >>> error = lost(1001, "server is going away; retry-after=0.2", clean=True, closed_by_us=False)
    >>> (error.reason, error.retry_after)
    ('the server closed the connection (1001): server is going away; retry-after=0.2', 0.2)

    :param code: the close code; ``None`` without one.
    :param reason: the server's reason.
    :param clean: whether the server has closed it.
    :param closed_by_us: whether this side has begun to close it.
    """
    if closed_by_us:
        text = "closed"
    elif not clean:
        text = "the connection was lost"
    else:
        text = f"the server closed the connection ({code})" if code else "the server closed the connection"
        text = f"{text}: {short(reason)}" if reason else text
    error = ConnectionLost(text)
    error.code = code
    asked = _RETRY_AFTER.search(reason) if clean else None
    error.retry_after = None if asked is None else float(asked[1])
    return error


def refused(what: str, status: str, text: str) -> ConnectFailed:
    """
    Return the error for a connection that the server has refused with an HTTP status.

    >>> refused("a WebSocket", "503 Service Unavailable", "too many connections").reason
    'the server refuses a WebSocket: 503 Service Unavailable: too many connections'

    :param what: what the client has asked for, such as ``a WebSocket``.
    :param status: the status and its phrase.
    :param text: the plain text that came with it; empty if none came.
    """
    status, text = short(status.strip()), short(text.strip())
    reason = f"the server refuses {what}: {status}" + (f": {text}" if text else "")
    if status.split()[:1] == ["401"]:
        return LoginFailed(reason, status=401)
    return ConnectFailed(reason)


def short(text: str) -> str:
    """Return *text* in one line, in a limited length."""
    return "".join(char if char.isprintable() else " " for char in text)[:_MAX_REASON_LENGTH]
