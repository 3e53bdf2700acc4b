"""
The options for connections as a whole: presence, logins of one user, hooks.

A part of :mod:`lhttp_tx.twistd.options`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.python import usage

from lhttp_tx.cluster.announcer import COMMAND
from lhttp_tx.cluster.presence import GRACE
from lhttp_tx.codec import bounds
from lhttp_tx.identity import check_parameter
from lhttp_tx.interfaces import IHooks, IProcessor
from lhttp_tx.rules.model import Rules, check_presence
from lhttp_tx.twistd.loading import load_object
from lhttp_tx.twistd.topics.topic import Topic, usage_errors

__all__ = ["CommunityOptions"]


class CommunityOptions(Topic):
    """
    ``--presence``, ``--hooks`` and the options for logins.

    :ivar hooks: the hooks of ``--hooks``. After the command line is parsed, also the installed plugins.
    """

    optFlags = [["single-login", None, "Allow one connection for each user: a new one closes the old one."]]

    optParameters = [
        [
            "max-per-user",
            None,
            0,
            "Maximum number of connections of a user, 0 for no limit; a new connection closes the oldest one",
            bounds.COUNT_OR_NONE,
        ],
        ["login-parameter", None, None, "Query parameter with the user name, for servers without authentication"],
        ["presence-grace", None, GRACE, "Seconds after a disconnect before a user counts as gone", bounds.GRACE],
        [
            "wait-timeout",
            None,
            0.0,
            "Time limit for a message to wait for earlier ones of its connection, in seconds, 0 for no limit",
            bounds.WAIT,
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.hooks: list[IHooks] = []
        self._presence: list[str] = []

    def opt_presence(self, pattern: str) -> None:
        """Channels with presence, such as room.* or > for all (repeatable)"""
        with usage_errors("--presence"):
            self._presence.append(check_presence(pattern))

    def opt_hooks(self, name: str) -> None:
        """Hooks to load: package.module:Name or path/to/file.py:Name (repeatable)"""
        with usage_errors():
            self.hooks.append(load_object(name, IHooks))

    def community_settings(
        self, plugins: Iterable[IHooks], *, processors: Iterable[IProcessor], rules: Rules | None, knows_users: bool
    ) -> dict[str, Any]:
        """
        Return settings of :class:`lhttp_tx.config.Config`.

        :param plugins: the installed hooks.
        :param processors: the processors.
        :param rules: the channel rules.
        :param knows_users: whether clients log in.
        :raises UsageError: if the options contradict each other.
        """
        self.hooks.extend(plugins)
        parameter, single, most = self["login-parameter"], self["single-login"], self["max-per-user"]
        if parameter is not None:
            with usage_errors("--login-parameter"):
                check_parameter(parameter)
            if knows_users:
                raise usage.UsageError(
                    "--login-parameter is for servers without authentication: leave it out, "
                    "or leave out --auth, --jwt-key-file, --jwks-file and --authenticator"
                )
        if single and most:
            raise usage.UsageError("--single-login means --max-per-user 1: leave out one of them")
        if (single or most) and not knows_users and parameter is None:
            raise usage.UsageError(
                f"--{'single-login' if single else 'max-per-user'} needs users: add --auth, --jwt-key-file or "
                "--authenticator, or name a query parameter with --login-parameter"
            )
        if self._presence or any(rule.presence for rule in rules or ()):
            for processor in processors:
                if processor.command == COMMAND:
                    raise usage.UsageError(
                        f"{processor!r} has the command {COMMAND!r}, which the server handles if channels have presence"
                    )
        return {
            "presence": tuple(self._presence),
            "presence_grace": self["presence-grace"],
            "max_per_user": 1 if single else most,
            "login_parameter": parameter,
            "wait_timeout": self["wait-timeout"],
        }
