"""
The codes with which the server closes a WebSocket, and the codes that users' code may choose.

Every module may import this one. It imports nothing of the project. Codes from 4000 on are the server's own (RFC 6455,
section 7.4.2): 4000 plus the HTTP status with the same meaning.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "COUNTED",
    "CREDENTIALS_EXPIRED",
    "GOING_AWAY",
    "INTERNAL_ERROR",
    "LOGGED_IN_ELSEWHERE",
    "LOGIN_TIMEOUT",
    "MAY_HAVE_MISSED",
    "POLICY_VIOLATION",
    "PROTOCOL_ERROR",
    "TOO_BIG",
    "TOO_SLOW",
    "check_close_code",
]

GOING_AWAY: Final = 1001
"""The server is stopping."""

PROTOCOL_ERROR: Final = 1002
"""The bytes of the peer cannot be split into messages."""

POLICY_VIOLATION: Final = 1008
"""A filter refuses the connection, or there were too many failed logins or too many errors."""

TOO_BIG: Final = 1009
"""A message has more than twice as many bytes as allowed."""

INTERNAL_ERROR: Final = 1011
"""The server has failed."""

TOO_SLOW: Final = 1013
"""The peer does not read what the server sends."""

CREDENTIALS_EXPIRED: Final = 4401
"""The client's credentials have expired, and the client has not logged in again before."""

LOGIN_TIMEOUT: Final = 4408
"""The client has connected without credentials, and has not logged in within the time limit."""

LOGGED_IN_ELSEWHERE: Final = 4409
"""The user has too many connections, and this one is the oldest."""

MAY_HAVE_MISSED: Final = 4410
"""The client may have missed publications, because its node was cut off from others. It did not ask to be told."""

COUNTED: Final = frozenset(
    {
        *(1000, GOING_AWAY, PROTOCOL_ERROR, 1003, 1005, 1006, 1007, POLICY_VIOLATION, TOO_BIG, 1010, INTERNAL_ERROR),
        *(1012, TOO_SLOW, CREDENTIALS_EXPIRED, LOGIN_TIMEOUT, LOGGED_IN_ELSEWHERE, MAY_HAVE_MISSED),
    }
)
"""Codes that the metrics count separately. Peers and processors may use many others, which count together."""

_SENDABLE = frozenset({1000, GOING_AWAY, POLICY_VIOLATION, INTERNAL_ERROR, TOO_SLOW})
"""The codes below 3000 that code may choose."""


def check_close_code(code: int, reason: str = "") -> None:
    """
    Check the code and the reason of a close frame that code has chosen.

    :raises ValueError: if *code* is not one that a server may send: 1000, 1001, 1008, 1011, 1013 or 3000 to 4999
        (RFC 6455, section 7.4).
    :raises TypeError: if *code* is not an int, or *reason* is not a str.
    """
    if not isinstance(code, int) or not isinstance(reason, str):
        raise TypeError(f"a close code is an int, and its reason a str; not {code!r} and {reason!r}")
    if code not in _SENDABLE and not 3000 <= code <= 4999:
        raise ValueError(
            f"{code} is not a close code that a server may send: use 1000, 1008, or 3000 to 4999, for example"
        )
