"""
Who may do something in a channel: everybody, the authenticated, one user, those with a claim.

The values of ``subscribe`` and ``publish`` in a channel rule (:mod:`lhttp_tx.rules`), and how they are read from a
configuration file. Belongs to the codec: pure values.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from lhttp_tx.identity import Identity
from lhttp_tx.patterns import USER

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
        """Return whether *identity* may, in *channel*, which may be a wildcard subscription."""
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
    The user whose name stands in the channel's name.

    :ivar position: the number of the token, from 0.
    """

    position: int

    def allows(self, identity: Identity, channel: str) -> bool:
        """Return whether the token is the name of the user; a wildcard is nobody's name."""
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
    Those whose claims are these, or have these among them.

    :ivar wanted: names and values. A list of values means any of them; a mapping, claims within a claim.
    """

    wanted: Mapping[str, Any]

    def allows(self, identity: Identity, channel: str) -> bool:
        """Return whether the identity has all of the claims."""
        return _has(self.wanted, identity.claims)

    def __eq__(self, other: object) -> bool:
        """Return whether both ask for the same; true is not 1 here."""
        return isinstance(other, Claims) and _identical(self.wanted, other.wanted)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return "claims " + ", ".join(f"{name} = {value!r}" for name, value in self.wanted.items())


@final
@dataclass(frozen=True, slots=True)
class AnyOf(Access):
    """Those whom one of several lets in."""

    choices: tuple[Access, ...]

    def allows(self, identity: Identity, channel: str) -> bool:
        """Return whether one of them allows it."""
        return any(choice.allows(identity, channel) for choice in self.choices)

    def __str__(self) -> str:
        return " or ".join(map(str, self.choices))


def _has(wanted: object, found: object, name: str = "") -> bool:
    """Return whether what was *found* in a claim is what is *wanted*, or has it among others."""
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
    """Return whether it matters who somebody is."""
    if isinstance(access, AnyOf):
        return any(map(asks_identity, access.choices))
    return access not in (ANYBODY, NOBODY)


def names_user(access: Access | None) -> bool:
    """Return whether the user in the channel's name is among those who may."""
    return isinstance(access, User) or (isinstance(access, AnyOf) and any(map(names_user, access.choices)))


def read_access(value: Any, position: int | None) -> Access:
    """
    Return who may, as a configuration file says it.

    :param value: what the TOML parser made of it.
    :param position: where the channel's pattern has ``{user}``: the number of the token, or ``None``.
    :raises ValueError: if it makes no sense; the text says what does.
    """
    if isinstance(value, list):
        if not value:
            raise ValueError('an empty array lets nobody in; write "nobody"')
        return AnyOf(tuple(read_access(choice, position) for choice in value))
    if isinstance(value, dict):
        if not value:
            raise ValueError('a table without claims asks for nothing; write "authenticated" or "anybody"')
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
            raise ValueError("an empty array or table of claims asks for nothing; leave it out")
        for each in value.values() if isinstance(value, dict) else value:
            _check_claim(each)
    elif not isinstance(value, str | int | float):
        raise ValueError("a claim is compared with strings, numbers, true and false, and arrays and tables of these")
