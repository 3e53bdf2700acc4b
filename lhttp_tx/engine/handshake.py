"""
The request that opened a connection, kept for plugins that ask for it.

Imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Handshake"]


@dataclass(frozen=True, slots=True)
class Handshake:
    """
    The data that a client sent to open its connection, and what the server has verified.

    Its size is at most 16 KiB, the limit for the head of a request, plus the certificate.

    :ivar path: the path of the request as the client sent it, percent-encoded.
    :ivar query: the part after the ``?``, as the client sent it. It may contain secrets, such as a token.
    :ivar headers: the header values, by lower-case name. They may contain secrets, such as cookies.
    :ivar certificate: the client's TLS certificate, in DER; ``None`` without one, or without TLS.
    :ivar user: the user that a ``twisted.cred`` guard around the server's resource has found; ``None`` without a guard.
    """

    path: str
    query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    user: str | None = None
