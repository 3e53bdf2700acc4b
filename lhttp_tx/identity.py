"""
Who a connection belongs to.

A value, made when a connection opens or logs in, and read by processors, filters and rules as ``session.identity``.
Belongs to the codec: imports nothing of the project.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["Identity", "new_connection_id"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return _NOTHING


@dataclass(frozen=True, slots=True)
class Identity:
    """
    Who a connection belongs to. Its representation shows neither claims nor parameters.

    :ivar user: the name of the user; ``None`` for a client that has not said who it is.
    :ivar connection_id: the name of the connection, unique in the cluster.
    :ivar claims: what else an authenticator knows of the user, such as the claims of a token.
    :ivar parameters: the query parameters of the handshake, less those that are secret; of a repeated one the last.
    :ivar address: the client's address.
    :ivar expires: when the connection is closed unless the client logs in again, in seconds since 1970; ``None``:
        never.
    """

    user: str | None
    connection_id: str
    claims: Mapping[str, Any] = field(default_factory=_nothing, repr=False)
    parameters: Mapping[str, str] = field(default_factory=_nothing, repr=False)
    address: str = ""
    expires: float | None = None

    @property
    def authenticated(self) -> bool:
        """Whether it is known who this is."""
        return self.user is not None


def new_connection_id() -> str:
    """Return a name that no other connection has: 24 hexadecimal digits."""
    return secrets.token_hex(12)
