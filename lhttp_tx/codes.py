"""
The codes with which the server closes a WebSocket, all in one place.

Anybody may import this module; it imports nothing of the project. Codes from 4000 on are the server's own (RFC 6455,
section 7.4.2): 4000 and the HTTP status that says the same.
"""

from typing import Final

__all__ = [
    "CREDENTIALS_EXPIRED",
    "GOING_AWAY",
    "INTERNAL_ERROR",
    "LOGGED_IN_ELSEWHERE",
    "LOGIN_TIMEOUT",
    "POLICY_VIOLATION",
    "TOO_SLOW",
]

GOING_AWAY: Final = 1001
"""The server stops."""

POLICY_VIOLATION: Final = 1008
"""The connection is not accepted, by a filter, or ends after too many failed logins or too many errors."""

INTERNAL_ERROR: Final = 1011
"""The server failed."""

TOO_SLOW: Final = 1013
"""The peer does not read what is sent to it."""

CREDENTIALS_EXPIRED: Final = 4401
"""What the client had logged in with has expired, and it did not log in again before that."""

LOGIN_TIMEOUT: Final = 4408
"""The client connected without credentials and did not log in within its time."""

LOGGED_IN_ELSEWHERE: Final = 4409
"""The user has more connections than one user may have, and this one is the oldest."""
