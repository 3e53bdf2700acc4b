"""TCP ports for servers that tests start, and stop, and start again."""

from __future__ import annotations

import contextlib
import secrets
import socket
from pathlib import Path

__all__ = ["free_port"]


def free_port() -> int:
    """
    Return a TCP port that nobody listens on at the moment.

    It is none that the system gives away by itself. Such a one may have gone to somebody else when a server that was
    away for a while comes back to it, and then this server does not start.
    """
    first = 32_768
    with contextlib.suppress(OSError, ValueError):
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    while True:
        port = 10_000 + secrets.randbelow(max(first - 10_000, 1_000))
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
