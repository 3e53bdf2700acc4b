"""
The options for the Python prompt in the process.

A part of :mod:`lhttp_tx.twistd.options`. The prompt itself is :mod:`lhttp_tx.twistd.manhole`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from twisted.python import usage

from lhttp_tx.observe.extras import install_command
from lhttp_tx.twistd.topics.topic import Topic, check_endpoint, checked_port, read_secret

__all__ = ["ManholeOptions", "ManholeSettings"]


@dataclass(frozen=True, slots=True)
class ManholeSettings:
    """
    The settings of the Python prompt. It belongs to the process, so a server's ``Config`` does not contain them.

    :ivar listen: its endpoint.
    :ivar keys: the file with the public keys of its users.
    :ivar host_key: the file with its private key, made if it is missing; ``None``: a new key for each start.
    """

    listen: str
    keys: str
    host_key: str | None


class ManholeOptions(Topic):
    """The options ``--manhole...``."""

    optParameters = [
        ["manhole", None, None, "Python prompt over SSH: a port on the loopback interface, or an endpoint description"],
        ["manhole-keys", None, None, "File with the public keys that may use the manhole (authorized_keys)"],
        [
            "manhole-host-key",
            None,
            None,
            "File with the host key of the manhole, created if missing [default: a new key each start]",
        ],
    ]

    def manhole_settings(self) -> ManholeSettings | None:
        """
        Return the settings of the prompt; ``None`` if the options do not ask for it.

        :raises UsageError: if the options contradict each other, or a package that it needs is missing.
        """
        listen, keys = self["manhole"], self["manhole-keys"]
        if listen is None:
            return None
        if importlib.util.find_spec("bcrypt") is None:
            raise usage.UsageError(f"--manhole needs more of Twisted: {install_command('manhole')}")
        if keys is None:
            raise usage.UsageError("--manhole: say who may come in, with --manhole-keys ~/.ssh/authorized_keys")
        if self["workers"] > 1:
            raise usage.UsageError("--manhole shows one process: leave out --workers")
        read_secret("--manhole-keys", keys, wait=0)  # each login reads it again
        if self["manhole-host-key"] is not None and Path(self["manhole-host-key"]).exists():
            read_secret("--manhole-host-key", self["manhole-host-key"], wait=0)
        if listen.isascii() and listen.isdigit():
            listen = f"tcp:{checked_port('--manhole', listen)}:interface=127.0.0.1"
        check_endpoint("--manhole", listen)
        return ManholeSettings(listen, keys, self["manhole-host-key"])
