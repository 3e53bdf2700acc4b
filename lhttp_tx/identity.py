"""
The identity of the client of a connection.

A value, made when a connection opens or logs in. Processors, filters and rules read it as ``session.identity``. Imports
nothing of the project, so every module may import it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["LAST_TIME", "Identity", "check_parameter", "is_name", "new_connection_id"]

LAST_TIME = 253_402_300_799
"""The end of the year 9999, in seconds since 1970. The server uses no later time."""

_NAME_SIZE = 255
"""The most bytes of a user's name; the same as for a channel's name."""

_PARAMETER = re.compile(r"[0-9A-Za-z_.~-]+")
"""A query parameter's name that needs no escapes (RFC 3986, section 2.3)."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return _NOTHING


@dataclass(frozen=True, slots=True)
class Identity:
    """
    The identity of the client of a connection. Its representation shows neither claims nor parameters.

    :ivar user: the name of the user; ``None`` for an anonymous client.
    :ivar connection_id: the name of the connection, unique in the cluster.
    :ivar claims: more facts about the user from an authenticator, such as the claims of a token.
    :ivar parameters: the query parameters of the handshake, without the secret ones. If a parameter is repeated, the
        last value counts.
    :ivar address: the client's address.
    :ivar expires: when the server closes the connection unless the client logs in again, in seconds since 1970;
        ``None``: never.
    """

    user: str | None
    connection_id: str
    claims: Mapping[str, Any] = field(default_factory=_nothing, repr=False)
    parameters: Mapping[str, str] = field(default_factory=_nothing, repr=False)
    address: str = ""
    expires: float | None = None

    @property
    def authenticated(self) -> bool:
        """Whether the user is known."""
        return self.user is not None


def new_connection_id() -> str:
    """Return a name that no other connection has: 24 hexadecimal digits."""
    return secrets.token_hex(12)


def is_name(name: str) -> bool:
    """Return whether *name* can be a user's name: it must fit into a header, and have 1 to 255 bytes."""
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    return 0 < size <= _NAME_SIZE and name == name.strip() and name.isprintable()


def check_parameter(name: str) -> str:
    """
    Return the name of a query parameter, which must need no escapes.

    :raises ValueError: if it needs escapes.
    """
    if not _PARAMETER.fullmatch(name):
        raise ValueError(f"{name!r}: use letters, digits and - . _ ~")
    return name
