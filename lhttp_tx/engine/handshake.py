"""
How a client opened its connection, kept for plugins that ask for it.

Imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Handshake"]


@dataclass(frozen=True, slots=True)
class Handshake:
    """
    The data that a client sent, and proved, to open its connection.

    Without the certificate, it has at most 16 KiB, as many bytes as the head of a request may have.

    :ivar path: the path of the request as the client sent it, still quoted.
    :ivar query: what follows the ``?``, as the client sent it. It may hold secrets, such as a token.
    :ivar headers: the values by lower-case name. They may hold secrets, such as cookies.
    :ivar certificate: the client's TLS certificate, in DER; ``None`` without one, or without TLS.
    :ivar user: the user that a ``twisted.cred`` guard around the server's resource has found; ``None`` without a guard.
    """

    path: str
    query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    user: str | None = None
