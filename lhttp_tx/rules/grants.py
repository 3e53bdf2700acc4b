"""
Who may do something in a channel: everybody, authenticated users, one user, or users with certain claims.

These are the values of ``subscribe`` and ``publish`` in a channel rule (:mod:`lhttp_tx.rules.model`). The module also
reads them from a configuration file. Pure values, without I/O.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from lhttp_tx.identity import Identity
from lhttp_tx.rules.patterns import USER

__all__ = [
    "ANYBODY",
    "AUTHENTICATED",
    "NOBODY",
    "Access",
    "AnyOf",
    "Claims",
    "User",
    "asks_identity",
    "names_user",
    "read_access",
]


class Access:
    """Who may do something in a channel."""

    __slots__ = ()

    def allows(self, identity: Identity, channel: str) -> bool:
        """Return whether *identity* may do it in *channel*, which may be a wildcard subscription."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _Word(Access):
    word: str

    def allows(self, identity: Identity, channel: str) -> bool:
        if self.word == "authenticated":
            return identity.user is not None
        return self.word == "anybody"

    def __str__(self) -> str:
        return self.word


ANYBODY: Access = _Word("anybody")
AUTHENTICATED: Access = _Word("authenticated")
NOBODY: Access = _Word("nobody")

_WORDS = {"anybody": ANYBODY, "authenticated": AUTHENTICATED, "nobody": NOBODY}


@final
@dataclass(frozen=True, slots=True)
class User(Access):
    """
    The user whose name is part of the channel's name.

    :ivar position: the index of the token that holds the name, from 0.
    """

    position: int

    def allows(self, identity: Identity, channel: str) -> bool:
        """Return whether the token is the user's name. A wildcard matches no user."""
        user = identity.user
        if user is None or user in ("*", ">"):
            return False
        tokens = channel.split(".")
        return self.position < len(tokens) and tokens[self.position] == user

    def __str__(self) -> str:
        return USER


@final
@dataclass(frozen=True, slots=True, eq=False)
class Claims(Access):
    """
    Users who have all of these claims.

    :ivar wanted: names and values. A list of values means any one of them. A mapping means claims within a claim.
    """

    wanted: Mapping[str, Any]

    def allows(self, identity: Identity, channel: str) -> bool:
        """Return whether the identity has all of the claims."""
        return _has(self.wanted, identity.claims)

    def __eq__(self, other: object) -> bool:
        """Return whether both ask for the same claims. Here, true does not equal 1."""
        return isinstance(other, Claims) and _identical(self.wanted, other.wanted)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return "claims " + ", ".join(f"{name} = {value!r}" for name, value in self.wanted.items())


@final
@dataclass(frozen=True, slots=True)
class AnyOf(Access):
    """Clients that at least one of several grants allows."""

    choices: tuple[Access, ...]

    def allows(self, identity: Identity, channel: str) -> bool:
        """Return whether one of the grants allows it."""
        return any(choice.allows(identity, channel) for choice in self.choices)

    def __str__(self) -> str:
        return " or ".join(map(str, self.choices))


def _has(wanted: object, found: object, name: str = "") -> bool:
    """Return whether the value *found* in a claim equals *wanted*, or contains it."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(_has(value, found.get(key), key) for key, value in wanted.items())
    if isinstance(wanted, list | tuple):
        return any(_has(choice, found, name) for choice in wanted)
    if name == "scope" and isinstance(found, str):
        found = found.split()  # RFC 8693, section 4.2
    if isinstance(found, list | tuple):
        return any(_same(wanted, each) for each in found)
    return _same(wanted, found)


def _same(wanted: object, found: object) -> bool:
    return wanted == found and isinstance(wanted, bool) == isinstance(found, bool)


def _identical(one: object, other: object) -> bool:
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping)
            and one.keys() == other.keys()
            and all(map(_identical, one.values(), [other[key] for key in one]))
        )
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(_identical, one, other))
    return _same(one, other)


def asks_identity(access: Access) -> bool:
    """Return whether *access* depends on who the client is."""
    if isinstance(access, AnyOf):
        return any(map(asks_identity, access.choices))
    return access not in (ANYBODY, NOBODY)


def names_user(access: Access | None) -> bool:
    """Return whether *access* includes the user named in the channel's name."""
    return isinstance(access, User) or (isinstance(access, AnyOf) and any(map(names_user, access.choices)))


def read_access(value: Any, position: int | None) -> Access:
    """
    Return the grant that a configuration file describes.

    :param value: the value as the TOML parser returns it.
    :param position: the index of the token ``{user}`` in the channel's pattern, or ``None``.
    :raises ValueError: if *value* is not valid. The text says which values are.
    """
    if isinstance(value, list):
        if not value:
            raise ValueError('an empty array allows nobody; write "nobody"')
        return AnyOf(tuple(read_access(choice, position) for choice in value))
    if isinstance(value, dict):
        if not value:
            raise ValueError('a table without claims requires nothing; write "authenticated" or "anybody"')
        for claim in value.values():
            _check_claim(claim)
        return Claims(value)
    if value == USER:
        if position is None:
            raise ValueError(f'"{USER}" needs a token {USER} in match, such as match = "user.{USER}"')
        return User(position)
    access = _WORDS.get(value) if isinstance(value, str) else None
    if access is None:
        guesses = difflib.get_close_matches(str(value), _WORDS, 1, 0.6)
        guess = f"; did you mean {guesses[0]}?" if guesses else ""
        raise ValueError(
            f'it is "anybody", "authenticated", "nobody", "{USER}", a table of claims, or an array of these, '
            f"not {value!r}{guess}"
        )
    return access


def _check_claim(value: Any) -> None:
    if isinstance(value, dict | list):
        if not value:
            raise ValueError("an empty array or table of claims requires nothing; leave it out")
        for each in value.values() if isinstance(value, dict) else value:
            _check_claim(each)
    elif not isinstance(value, str | int | float):
        raise ValueError("a claim is compared with strings, numbers, true and false, and arrays and tables of these")
