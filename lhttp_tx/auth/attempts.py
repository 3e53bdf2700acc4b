"""
A client's credentials, from the opening handshake or a login message.

:mod:`lhttp_tx.transports.websocket.opening` and :mod:`lhttp_tx.auth.lobby` make attempts, and authenticators read them.
Pure functions on text.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import compress
from operator import methodcaller
from types import MappingProxyType
from typing import Any

from lhttp_tx.codec.message import Message
from lhttp_tx.guard.heads import unquote
from lhttp_tx.identity import Identity

__all__ = ["LoginAttempt", "read_cookies", "read_parameters"]

_NOTHING: Mapping[str, str] = MappingProxyType({})


def _nothing() -> Mapping[str, str]:
    return _NOTHING


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """
    One attempt of a client to log in. Its representation shows no secrets.

    :ivar address: the client's address, as in ``session.peer``.
    :ivar connection_id: the name of the connection.
    :ivar path: the path of the handshake, as the client sent it; empty on a plain stream, which has none.
    :ivar parameters: the query parameters of the handshake. If a parameter is repeated, the last value counts.
    :ivar headers: the headers of the handshake by lower-case name; empty for a login message.
    :ivar secure: whether the connection is encrypted, as far as the server can see.
    :ivar certificate: the TLS certificate, in DER, that the client has presented; ``None`` without one, and for a login
        message.
    :ivar message: the login message; ``None`` on the handshake.
    :ivar identity: the connection's identity so far; ``None`` on the handshake, and before the first login.
    """

    address: str
    connection_id: str
    path: str = "/"
    parameters: Mapping[str, str] = field(default_factory=_nothing)
    headers: Mapping[str, str] = field(default_factory=_nothing)
    secure: bool = False
    certificate: bytes | None = field(default=None, repr=False)
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
        User and password, from ``Authorization: Basic`` (RFC 7617, UTF-8), or from the headers ``user`` and
        ``password`` of a login message; ``None`` if they are missing or malformed.
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

        :param user: 1 to 255 bytes of UTF-8, without control characters, and without blanks around them.
        :param claims: more facts about the user, for rules, processors and filters.
        :param expires: when the identity expires, in seconds since 1970. The server then closes the connection, unless
            the client has logged in again. ``None``: never.
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
    """Return the parameters of a query string, unquoted. If a parameter is repeated, the last value counts."""
    if not query:
        return _NOTHING
    found = {}
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            found[_unquote(name)] = _unquote(value)
    return MappingProxyType(found)


def _unquote(text: str) -> str:
    text = text.replace("+", " ")
    return unquote(text.encode("utf-8")).decode("utf-8", "replace") if "%" in text else text


def read_cookies(header: str) -> dict[str, str]:
    """
    Return the cookies of a ``Cookie`` header (RFC 6265, section 5.4). If a cookie is repeated, the first one counts.
    """
    names, equals, values = zip(*map(methodcaller("partition", "="), header.split(";")), strict=True)
    stripped = map(str.strip, values)  # there may be thousands, so no loop in Python
    for side in ("removeprefix", "removesuffix"):
        stripped = map(methodcaller(side, '"'), stripped)
    found = [*compress(zip(map(str.strip, names), stripped, strict=True), equals)]
    return dict(reversed(found))
