"""
What a client says of who it is, on the opening handshake or in a login message.

Made by :mod:`lhttp_tx.opening` and :mod:`lhttp_tx.auth.login`, read by authenticators. Pure functions on text.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from lhttp_tx.identity import Identity
from lhttp_tx.message import Message

__all__ = ["LoginAttempt", "read_cookies", "read_parameters"]

_NOTHING: Mapping[str, str] = MappingProxyType({})


def _nothing() -> Mapping[str, str]:
    return _NOTHING


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """
    One attempt of a client to say who it is. Its representation shows none of its secrets.

    :ivar address: the client's address, as a session has it.
    :ivar connection_id: the name of the connection.
    :ivar path: the path of the handshake, as it was sent.
    :ivar parameters: the query parameters of the handshake; of a repeated one the last counts.
    :ivar headers: the headers of the handshake by lower-case name; none for a login message.
    :ivar secure: whether the connection is encrypted as far as the server can see.
    :ivar message: the login message; ``None`` on the handshake.
    :ivar identity: who the connection belongs to so far; ``None`` on the handshake, and before the first login.
    """

    address: str
    connection_id: str
    path: str = "/"
    parameters: Mapping[str, str] = field(default_factory=_nothing)
    headers: Mapping[str, str] = field(default_factory=_nothing)
    secure: bool = False
    message: Message | None = None
    identity: Identity | None = None

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies of the handshake."""
        return read_cookies(self.headers.get("cookie", ""))

    @property
    def token(self) -> str | None:
        """The token of ``Authorization: Bearer``, or of the header ``token`` of a login message; else ``None``."""
        if self.message is not None:
            return self.message.headers.get("token")
        return self._authorization("bearer")

    @property
    def password(self) -> tuple[str, str] | None:
        """
        User and password of ``Authorization: Basic`` (RFC 7617, UTF-8), or of the headers ``user`` and ``password`` of
        a login message; ``None`` if they are missing or malformed.
        """
        if self.message is not None:
            headers = self.message.headers
            user, password = headers.get("user"), headers.get("password")
            return None if user is None or password is None else (user, password)
        found = self._authorization("basic")
        if found is None:
            return None
        try:
            user, colon, password = b64decode(found, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, ValueError):
            return None
        return (user, password) if colon else None

    def identify(self, user: str, claims: Mapping[str, Any] | None = None, *, expires: float | None = None) -> Identity:
        """
        Return the identity of *user* on this connection.

        :param user: 1 to 255 bytes of UTF-8 without control characters, and without blanks around them.
        :param claims: what else is known of the user, for rules, processors and filters.
        :param expires: when this ends, in seconds since 1970: the connection is closed then unless the client has
            logged in again; ``None``: never.
        """
        return Identity(
            user=user,
            connection_id=self.connection_id,
            claims=MappingProxyType(dict(claims or {})),
            parameters=self.parameters,
            address=self.address,
            expires=expires,
        )

    def _authorization(self, scheme: str) -> str | None:
        found, _, value = self.headers.get("authorization", "").partition(" ")
        return value.strip() or None if found.lower() == scheme else None

    def __repr__(self) -> str:
        return f"<LoginAttempt {self.address} {'login message' if self.message is not None else 'handshake'}>"


def read_parameters(query: str) -> Mapping[str, str]:
    """Return the parameters of a query string, unquoted; of a repeated one the last counts."""
    return MappingProxyType(dict(parse_qsl(query, keep_blank_values=True))) if query else _NOTHING


def read_cookies(header: str) -> dict[str, str]:
    """Return the cookies of a ``Cookie`` header (RFC 6265, section 5.4); of a repeated one the first counts."""
    cookies: dict[str, str] = {}
    for pair in header.split(";"):
        name, equals, value = pair.partition("=")
        if equals:
            cookies.setdefault(name.strip(), value.strip().removeprefix('"').removesuffix('"'))
    return cookies
