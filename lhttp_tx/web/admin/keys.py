"""
The keys of the admin side: who may call which methods, for which channels.

A key is a secret that the operator creates. The server keeps only its SHA-256 hash. Pure, except that
:func:`read_keys` reads files with secrets. Used by :mod:`lhttp_tx.web.admin.gate`, and by
:mod:`lhttp_tx.twistd.settings`, which has the tables ``[admin.keys.NAME]``.
"""

from __future__ import annotations

import difflib
import hmac
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from lhttp_tx.codec.wildcards import is_wildcard
from lhttp_tx.guard.access import check_token
from lhttp_tx.guard.files import read_file
from lhttp_tx.rules.patterns import USER, check_pattern, covers, split_pattern

__all__ = ["EVERY", "MAX_KEYS", "AdminKey", "Keyring", "digest_of", "read_keys"]

MAX_KEYS = 100
"""The most keys of a server. Each secret is compared with all of them."""

EVERY = "*"
"""Stands for every method in the scope of a key."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
_TABLE_KEYS = ("secret_file", "hash", "methods", "channels")
_MAX_SECRET = 4_096
"""The most bytes of a file with a secret."""


@dataclass(frozen=True, slots=True)
class AdminKey:
    """
    One key. Its representation does not show the hash.

    :ivar name: its name in the log and in the configuration: 1 to 64 letters, digits, ``-`` and ``_``.
    :ivar digest: the SHA-256 hash of the secret, 32 bytes (:func:`digest_of`).
    :ivar methods: the methods that it may call; ``*`` stands for all.
    :ivar channels: patterns of the channels that it may call them for, such as ``news.>``; ``>`` stands for all.
    """

    name: str
    digest: bytes = field(repr=False)
    methods: frozenset[str]
    channels: tuple[str, ...] = (">",)

    def __post_init__(self) -> None:
        """:raises ValueError: if a field is malformed."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"the name {self.name[:64]!r} of a key is not 1 to 64 letters, digits, - and _")
        if len(self.digest) != 32:
            raise ValueError("the hash of a secret is 32 bytes of SHA-256")
        for pattern in self.channels:
            if USER in pattern.split("."):
                raise ValueError(f"{pattern!r}: a key has no user, so {USER} has no meaning")
            try:
                check_pattern(pattern)
            except ValueError as error:
                raise ValueError(f"{pattern!r}: {error}") from None

    def may_call(self, method: str) -> bool:
        """Return whether its scope contains *method*."""
        return method in self.methods or EVERY in self.methods

    @property
    def has_all_channels(self) -> bool:
        """Whether its scope contains every channel."""
        return ">" in self.channels

    def may_use(self, channel: str) -> bool:
        """
        Return whether its scope contains *channel*, or every channel that a wildcard *channel* matches.

        >>> key = AdminKey("editor", digest_of(b"a secret"), frozenset({"publish"}), ("news.>",))
        >>> key.may_use("news.de"), key.may_use("news.*"), key.may_use("chat")
        (True, True, False)
        """
        tokens = channel.split(".")
        if is_wildcard(channel):
            return any(covers(split_pattern(pattern), tokens) for pattern in self.channels)
        return self.has_all_channels or any(_matches(pattern.split("."), tokens) for pattern in self.channels)


def _matches(pattern: list[str], tokens: list[str]) -> bool:
    for number, wanted in enumerate(pattern):
        if wanted == ">":
            return number < len(tokens)
        if number >= len(tokens) or wanted not in ("*", tokens[number]):
            return False
    return len(pattern) == len(tokens)


def digest_of(secret: bytes) -> bytes:
    """Return the hash of a secret. Secrets are long and random, so one round of SHA-256 is enough."""
    return sha256(secret).digest()


class Keyring:
    """The keys in force. They can be replaced while the server runs."""

    def __init__(self, keys: Iterable[AdminKey] = ()) -> None:
        """
        :param keys: the keys.
        :raises ValueError: as :meth:`replace`.
        """
        self._keys: tuple[AdminKey, ...] = ()
        self.replace(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def replace(self, keys: Iterable[AdminKey]) -> None:
        """
        Replace all keys, for all requests from now on.

        :raises ValueError: if there are more than :data:`MAX_KEYS`, or if two have the same name or secret. Then
            nothing changes.
        """
        found = tuple(keys)
        if len(found) > MAX_KEYS:
            raise ValueError(f"there are {len(found)} keys of the admin side, and at most {MAX_KEYS} are allowed")
        if len({key.name for key in found}) < len(found):
            raise ValueError("two keys of the admin side have the same name")
        if len({key.digest for key in found}) < len(found):
            raise ValueError("two keys of the admin side have the same secret: make one for each")
        self._keys = found

    def find(self, secret: bytes) -> AdminKey | None:
        """
        Return the key with this secret; ``None`` without one. The time that this takes does not depend on the secrets.
        """
        digest = digest_of(secret)
        found: AdminKey | None = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def read_keys(
    tables: Any, *, known: Collection[str], base: Path
) -> tuple[list[AdminKey], list[tuple[tuple[str, ...], str]], list[tuple[str, str]]]:
    """
    Return the keys of the tables ``[admin.keys.NAME]``; the mistakes in them, each with its place; and the files with
    secrets, each with the name of its key.

    :param tables: the table ``admin.keys`` as :mod:`tomllib` reads it.
    :param known: the names of all methods.
    :param base: the directory to which names of files are relative.
    """
    if not isinstance(tables, dict):
        return [], [((), "admin.keys is a table of tables: write [admin.keys.NAME]")], []
    keys: list[AdminKey] = []
    problems: list[tuple[tuple[str, ...], str]] = []
    files: list[tuple[str, str]] = []
    for name, table in tables.items():
        try:
            if not isinstance(table, dict):
                raise ValueError(f"admin.keys.{name} is a table: write [admin.keys.{name}]")
            keys.append(_read_key(name, table, known, base))
        except ValueError as error:
            problems.append(((name,), str(error)))
        else:
            if "secret_file" in table:
                files.append((name, str(base / table["secret_file"])))
    if not problems:
        try:
            Keyring(keys)
        except ValueError as error:
            problems.append(((), str(error)))
    return keys, problems, files


def _read_key(name: str, table: dict[str, Any], known: Collection[str], base: Path) -> AdminKey:
    for found in table:
        if found not in _TABLE_KEYS:
            raise ValueError(f"there is no key {found}; those that exist: {', '.join(_TABLE_KEYS)}")
    if ("secret_file" in table) is ("hash" in table):
        raise ValueError(f"admin.keys.{name} needs secret_file = PATH, or hash = SHA-256 of the secret, and not both")
    methods = _texts(table, "methods")
    if not methods:
        raise ValueError(f'admin.keys.{name}: say what it may do, such as methods = ["publish"], or ["*"] for all')
    for method in methods:
        if method not in known and method != EVERY:
            near = difflib.get_close_matches(method, known, 1)
            advice = f"did you mean {near[0]}?" if near else f"those that exist: {', '.join(sorted(known))}"
            raise ValueError(f"methods: there is no method {method[:64]!r}; {advice}")
    channels = _texts(table, "channels") if "channels" in table else [">"]
    return AdminKey(name, _digest(table, base), frozenset(methods), tuple(channels))


def _texts(table: dict[str, Any], name: str) -> list[str]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"{name} is an array of strings")
    return found


def _digest(table: dict[str, Any], base: Path) -> bytes:
    value = table.get("hash", table.get("secret_file"))
    if not isinstance(value, str) or not value:
        raise ValueError("secret_file and hash are strings")
    if "hash" in table:
        found = _DIGEST.fullmatch(value)
        if found is None:
            raise ValueError("hash is the SHA-256 of the secret, 64 hexadecimal digits: printf %s SECRET | sha256sum")
        return bytes.fromhex(found[1])
    try:
        secret = read_file(base / value, most=_MAX_SECRET, name=f"secret_file {value}").strip()
    except OSError as error:
        raise ValueError(f"secret_file {value}: {error.strerror or error}") from None
    try:
        return digest_of(check_token(secret))
    except ValueError as error:
        raise ValueError(f"the secret in {value} {error}") from None
