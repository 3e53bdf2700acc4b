"""
The options about connections as a whole: presence, logins of one user, hooks.

A part of :mod:`lhttp_tx.options`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.python import usage

from lhttp_tx.announcer import COMMAND
from lhttp_tx.community import check_presence
from lhttp_tx.interfaces import IHooks, IProcessor
from lhttp_tx.loading import load_object
from lhttp_tx.presence import GRACE
from lhttp_tx.rules import Rules

__all__ = ["COMMUNITY_FLAGS", "CommunityOptions", "community_parameters"]

COMMUNITY_FLAGS = [["single-login", None, "Close a user's connection when the same user connects again, anywhere."]]
"""Options without a value."""

_PARAMETER = re.compile(r"[0-9A-Za-z_.~-]+")
"""A query parameter's name that needs no escapes (RFC 3986, section 2.3)."""


def _seconds(low: float) -> Callable[[str], float]:
    def coerce(value: str) -> float:
        try:
            seconds = float(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a number") from None
        if not (low <= seconds <= 86_400 or seconds == 0):
            raise ValueError(f"{value} is not from {low:g} to 86400, nor 0")
        return seconds

    coerce.coerceDoc = f"A number from {low:g} to 86400, or 0."  # type: ignore[attr-defined]
    return coerce


def community_parameters(count_or_none: Callable[[str], int]) -> list[list[Any]]:
    """Return options with a value; *count_or_none* takes those that may be zero."""
    return [
        ["max-per-user", None, 0, "Connections of one user, of which the newest stay; 0 for no limit", count_or_none],
        ["login-parameter", None, None, "Query parameter that says what a client is called where nobody logs in"],
        ["presence-grace", None, GRACE, "Seconds that somebody may be gone who has not left", _seconds(0.1)],
        ["wait-timeout", None, 0.0, "Seconds that a message may wait for those before it, 0 for any", _seconds(0.01)],
    ]


class CommunityOptions:
    """
    ``--presence``, ``--hooks`` and the options of logins.

    :ivar hooks: the hooks that ``--hooks`` named; once the command line is parsed, the installed plugins, too.
    """

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Any: ...

    def __init__(self) -> None:
        super().__init__()
        self.hooks: list[IHooks] = []
        self._presence: list[str] = []

    def opt_presence(self, pattern: str) -> None:
        """Channels of which clients may know who is there, such as room.* or > for all (repeatable)"""
        try:
            self._presence.append(check_presence(pattern))
        except ValueError as error:
            raise usage.UsageError(f"--presence {error}") from None

    def opt_hooks(self, name: str) -> None:
        """Hooks to load: package.module:Name or path/to/file.py:Name (repeatable)"""
        try:
            self.hooks.append(load_object(name, IHooks))
        except ValueError as error:
            raise usage.UsageError(str(error)) from None

    def community_settings(
        self, plugins: Iterable[IHooks], *, processors: Iterable[IProcessor], rules: Rules | None, knows_users: bool
    ) -> dict[str, Any]:
        """
        Return settings of :class:`lhttp_tx.config.Config`.

        :param plugins: the hooks that are installed.
        :param processors: the processors.
        :param rules: the channel rules.
        :param knows_users: whether clients log in.
        :raises UsageError: if the options do not fit.
        """
        self.hooks.extend(plugins)
        parameter, single, most = self["login-parameter"], self["single-login"], self["max-per-user"]
        if parameter is not None:
            if not _PARAMETER.fullmatch(parameter):
                raise usage.UsageError(f"--login-parameter {parameter!r}: use letters, digits and - . _ ~")
            if knows_users:
                raise usage.UsageError(
                    "--login-parameter believes what clients say, but here they log in: leave it out, "
                    "or leave out --auth, --jwt-key-file, --jwks-file and --authenticator"
                )
        if single and most:
            raise usage.UsageError("--single-login is --max-per-user 1: leave one of them out")
        if (single or most) and not knows_users and parameter is None:
            raise usage.UsageError(
                f"--{'single-login' if single else 'max-per-user'} needs to know users: add --auth, --jwt-key-file or "
                "--authenticator, or name a query parameter with --login-parameter"
            )
        if self._presence or any(rule.presence for rule in rules or ()):
            for processor in processors:
                if processor.command == COMMAND:
                    raise usage.UsageError(
                        f"{processor!r} has the command {COMMAND!r}, which is the server's own where presence is kept"
                    )
        return {
            "presence": tuple(self._presence),
            "presence_grace": self["presence-grace"],
            "max_per_user": 1 if single else most,
            "login_parameter": parameter,
            "wait_timeout": self["wait-timeout"],
        }
