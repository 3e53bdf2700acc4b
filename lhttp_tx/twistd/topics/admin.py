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
from lhttp_tx.twistd.topics.topic import Topic, check_endpoint, checked_port, usage_errors
from lhttp_tx.web.admin.keys import AdminKey

__all__ = ["AdminOptions", "AdminSettings"]


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """
    The settings of the admin side. It has a listener of its own, so a server's ``Config`` does not contain them.

    :ivar listen: its endpoint.
    :ivar keys: its keys.
    :ivar grpc: the endpoint for gRPC; ``None`` if there is none.
    """

    listen: str
    keys: tuple[AdminKey, ...]
    grpc: str | None = None


class AdminOptions(Topic):
    """The options ``--admin``, ``--grpc`` and ``--metrics``."""

    optFlags = [["metrics", None, "Collect metrics and serve them at GET /metrics of the admin side."]]

    optParameters = [
        [
            "admin",
            None,
            None,
            "Admin side: a port on the loopback interface, or an endpoint description",
        ],
        [
            "grpc",
            None,
            None,
            "gRPC for the API of the admin side: a port on the loopback interface, or an endpoint tcp: or ssl:",
        ],
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
        grpc = self["grpc"]
        if grpc is not None:
            if self["upgrade"] is not None:
                raise usage.UsageError(
                    "--grpc and --upgrade cannot be combined: gRPC opens its port itself, and cannot hand it over"
                )
            grpc = _checked_grpc(grpc, listen)
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
        return AdminSettings(listen, () if keys is None else keys.keys, grpc)


def _checked_grpc(grpc: str, listen: str | None) -> str:
    """Return the description of the endpoint for gRPC."""
    if listen is None:
        raise usage.UsageError("--grpc needs the admin side: add --admin ENDPOINT")
    if any(importlib.util.find_spec(name) is None for name in ("grpc", "google.protobuf")):
        raise usage.UsageError(f"--grpc needs grpcio and protobuf: {install_command('grpc')}")
    if grpc.isascii() and grpc.isdigit():
        grpc = f"tcp:{checked_port('--grpc', grpc)}:interface=127.0.0.1"
    check_endpoint("--grpc", grpc)
    from lhttp_tx.web.admin.grpc.listening import read_description  # needs optional packages

    with usage_errors(f"--grpc {grpc!r}:"):
        read_description(grpc)
    return grpc
