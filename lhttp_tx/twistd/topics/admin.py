"""
The option for the admin side.

A part of :mod:`lhttp_tx.twistd.options`. The admin side itself is :mod:`lhttp_tx.web.admin`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from twisted.python import usage

from lhttp_tx.observe.extras import install_command
from lhttp_tx.twistd.admin_keys import AdminKeys
from lhttp_tx.twistd.topics.topic import Topic, check_endpoint, checked_port
from lhttp_tx.web.admin.keys import AdminKey

__all__ = ["AdminOptions", "AdminSettings"]


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """
    The settings of the admin side. It has a listener of its own, so a server's ``Config`` does not contain them.

    :ivar listen: its endpoint.
    :ivar keys: its keys.
    """

    listen: str
    keys: tuple[AdminKey, ...]


class AdminOptions(Topic):
    """The options ``--admin`` and ``--metrics``."""

    optFlags = [["metrics", None, "Collect metrics and serve them at GET /metrics of the admin side."]]

    optParameters = [
        [
            "admin",
            None,
            None,
            "Admin side: a port on the loopback interface, or an endpoint description",
        ]
    ]

    def admin_settings(self, keys: AdminKeys | None, public: tuple[str, ...]) -> AdminSettings | None:
        """
        Return the settings of the admin side; ``None`` if the options do not ask for it.

        :param keys: the keys of the configuration file, if there is one.
        :param public: the endpoints of the server.
        :raises UsageError: if the options contradict each other.
        """
        listen = self["admin"]
        if self["metrics"]:
            if listen is None:
                raise usage.UsageError("--metrics needs the admin side: add --admin ENDPOINT")
            if importlib.util.find_spec("prometheus_client") is None:
                raise usage.UsageError(f"--metrics needs prometheus-client: {install_command('metrics')}")
        if listen is None:
            if keys is not None and keys.keys:
                raise usage.UsageError(
                    "there are keys for the admin side, but it does not listen: add --admin ENDPOINT"
                )
            return None
        if listen.isascii() and listen.isdigit():
            listen = f"tcp:{checked_port('--admin', listen)}:interface=127.0.0.1"
        check_endpoint("--admin", listen)
        if listen in public:
            raise usage.UsageError(
                f"--admin {listen}: the admin side cannot share a public port: give it a port of its own"
            )
        return AdminSettings(listen, () if keys is None else keys.keys)
