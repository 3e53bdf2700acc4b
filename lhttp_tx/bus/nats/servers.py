"""
Which NATS to use, and how to log in: a frozen value that an operator's options become.

Used by :mod:`lhttp_tx.config` and the bus. Imports nothing that does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from lhttp_tx.bus.subjects import check_prefix

__all__ = ["NATSServers", "check_server", "shown_server"]

_DEFAULT_PORT = 4222
_SCHEMES = frozenset({"nats", "tls"})


@dataclass(frozen=True, slots=True)
class NATSServers:
    """
    One NATS system, by some of its servers. Times are seconds, sizes are bytes.

    :ivar urls: ``nats://`` or ``tls://`` URLs of one or more servers; the others of their cluster are learnt from them.
    :ivar prefix: what every subject begins with: tokens that end with a dot, or nothing, to share channels with
        programs that use the bare names.
    :ivar user: who to log in as, where the URL does not say.
    :ivar password: the password for *user*.
    :ivar token: a token to log in with instead.
    :ivar credentials_file: a file with a user's JWT and seed (``.creds``) to log in with instead.
    :ivar tls_ca: a file with the certificates of authorities to trust instead of the system's.
    :ivar tls_certificate: a file with the certificate that this node shows.
    :ivar tls_key: a file with the key of *tls_certificate*, unless it is in the same file.
    :ivar local_delivery: whether publications are delivered on their own node alone while NATS is away; otherwise
        they are refused with status 503.
    :ivar timeout: how long a subscription may wait for NATS before it is refused with status 503.
    :ivar pending_size: how much may wait to be sent to NATS; publications beyond it are refused with status 503.
    """

    urls: tuple[str, ...]
    prefix: str = "lhttp."
    user: str | None = None
    password: str | None = None
    token: str | None = None
    credentials_file: str | None = None
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    local_delivery: bool = False
    timeout: float = 5.0
    pending_size: int = 4_194_304

    def __post_init__(self) -> None:
        """:raises ValueError: if there is no URL, or if a URL or the prefix is malformed."""
        if not self.urls:
            raise ValueError("name at least one NATS server, such as nats://127.0.0.1:4222")
        for url in self.urls:
            check_server(url)
        check_prefix(self.prefix)

    def __repr__(self) -> str:
        return f"<NATSServers {' '.join(map(shown_server, self.urls))}>"


def check_server(url: str) -> str:
    """
    Return *url* if it names a NATS server.

    :raises ValueError: if not; the text says what to write, and holds no password.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.path in ("", "/") and parts.port != 0
        valid = valid and not (parts.query or parts.fragment)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"{url.rpartition('@')[2]!r} names no NATS server; write one such as nats://127.0.0.1:4222")
    return url


def shown_server(url: str) -> str:
    """
    Return *url* for a log: without user and password, with its port.

    >>> shown_server("nats://me:secret@example.com")
    'nats://example.com:4222'
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{parts.port or _DEFAULT_PORT}"
