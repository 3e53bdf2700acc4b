"""
The options for the endpoints of the server, and for the clients that it accepts there.

A part of :mod:`lhttp_tx.twistd.options`.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.python import usage

from lhttp_tx.guard.access import origin_name, server_name
from lhttp_tx.guard.proxies import TrustedProxies
from lhttp_tx.ports.sockets import find_group, is_unix, read_mode
from lhttp_tx.twistd.topics.topic import Topic, check_endpoint, checked_port, usage_errors

__all__ = ["ListeningOptions"]

_BACKLOG = 1024


class ListeningOptions(Topic):
    """``--port``, ``--listen``, ``--tcp`` and the options for UNIX sockets, origins, names and proxies."""

    optParameters = [
        ["port", "p", None, "TCP port on all interfaces, or an endpoint description [default: 8081]"],
        ["unix-mode", None, None, "Mode of UNIX sockets [default: 660 with --unix-group, else 666]", read_mode],
        ["unix-group", None, None, "Group that may use UNIX sockets: a name or a number"],
        ["upgrade", None, None, "Path of a UNIX socket where the next process takes over the listening sockets"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self._listen: list[str] = []
        self._tcp: list[str] = []
        self._origins: list[str] = []
        self._server_names: list[str] = []
        self._proxies: list[str] = []

    def opt_listen(self, description: str) -> None:
        """Endpoint to listen on: tcp, ssl, unix, systemd ..., such as unix:/run/lhttp.sock (repeatable)"""
        check_endpoint("--listen", description)
        self._listen.append(description)

    def opt_tcp(self, description: str) -> None:
        """Endpoint for LHTTP without WebSocket, for devices, such as tcp:8082; it takes no HTTP (repeatable)"""
        check_endpoint("--tcp", description)
        self._tcp.append(description)

    def opt_allow_origin(self, origin: str) -> None:
        """Origin of other pages that may connect, such as https://app.example, or * for all (repeatable)"""
        with usage_errors("--allow-origin"):
            self._origins.append(origin_name(origin))

    def opt_server_name(self, name: str) -> None:
        """Host name of the server; requests for hosts other than these and localhost are refused (repeatable)"""
        with usage_errors("--server-name"):
            self._server_names.append(server_name(name))

    def opt_trusted_proxy(self, name: str) -> None:
        """Proxy whose X-Forwarded-For is trusted: an address, a network such as 10.0.0.0/8, or unix (repeatable)"""
        with usage_errors("--trusted-proxy"):
            TrustedProxies([name])
        self._proxies.append(name)

    def endpoints(self) -> tuple[str, ...]:
        """
        Return the descriptions of the endpoints to listen on.

        :raises UsageError: if ``--port`` is not valid.
        """
        port = self["port"]
        if port is None:
            return tuple(self._listen) or (_tcp("8081"),)
        if port.isascii() and port.isdigit():
            return (_tcp(checked_port("--port", port)), *self._listen)
        if ":" not in port:
            raise usage.UsageError(f"--port {port!r}: write a number, or an endpoint such as tcp:8081")
        check_endpoint("--port", port)
        return (port, *self._listen)

    def check_unix(self, endpoints: Iterable[str]) -> None:
        """
        Check the options for UNIX sockets.

        :param endpoints: the endpoints that the server listens on.
        :raises UsageError: if none of them is a UNIX socket, or the group does not exist.
        """
        for name in ("unix-mode", "unix-group"):
            if self[name] is not None and not any(map(is_unix, endpoints)):
                raise usage.UsageError(f"--{name} is for UNIX sockets: add --listen unix:PATH, or --tcp unix:PATH")
        if self["unix-group"] is not None:
            with usage_errors("--unix-group:"):
                find_group(self["unix-group"])


def _tcp(port: str) -> str:
    """Return the endpoint for a port on all interfaces, with a large backlog for many simultaneous connections."""
    return f"tcp:{port}:backlog={_BACKLOG}"
