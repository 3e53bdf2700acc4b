"""
The settings of the connection to NATS: a frozen value that is made from an operator's options.

Used by :mod:`lhttp_tx.config` and the bus. Imports nothing that does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from lhttp_tx.bus.nats.subjects import check_prefix
from lhttp_tx.codec.bounds import DELAY, SECONDS, SIZE, check_fields

__all__ = ["NATSServers", "check_credentials", "check_server", "is_server", "shown_server"]

_DEFAULT_PORT = 4222
_SCHEMES = frozenset({"nats", "tls"})


@dataclass(frozen=True, slots=True)
class NATSServers:
    """
    The settings of the connection to NATS. Times are seconds, sizes are bytes.

    :ivar urls: ``nats://`` or ``tls://`` URLs of one or more servers. These announce the other servers of their cluster
        to the node. If one URL begins with ``tls://``, all connections must use TLS.
    :ivar prefix: the prefix of every subject: tokens that end with a dot. With an empty prefix, other programs that use
        NATS share the channels under their names.
    :ivar user: the user to log in as, if the URL names none.
    :ivar password: the password for *user*.
    :ivar token: a token to log in with, instead of a user.
    :ivar credentials_file: a file with the JWT and the seed of a user (``.creds``) to log in with, instead of these.
    :ivar tls_ca: a file with the certificates of authorities to trust, instead of the system's.
    :ivar tls_certificate: a file with this node's certificate.
    :ivar tls_key: a file with the private key of *tls_certificate*; ``None`` if the key is in the same file.
    :ivar local_delivery: whether the bus delivers publications only on their own node while NATS is unavailable.
        Otherwise it refuses them with status 503.
    :ivar name: the name of the node's connections at NATS.
    :ivar timeout: the most seconds that a subscription waits for NATS. After that, the bus refuses it with status 503.
    :ivar pending_size: the most bytes that may wait to be sent to NATS. Beyond that, the bus refuses publications with
        status 503.
    :ivar max_delay: publications of another node are dropped if they take this many seconds longer than its quickest
        ones. 0: never.
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
    name: str = "lhttp_tx"
    timeout: float = 5.0
    pending_size: int = 4_194_304
    max_delay: float = 0.0

    def __post_init__(self) -> None:
        """
        :raises TypeError: if a field has a wrong type.
        :raises ValueError: if there is no URL, if a URL or the prefix is malformed, or if a number is out of bounds.
        """
        check_fields(self, {"timeout": SECONDS, "pending_size": SIZE, "max_delay": DELAY})
        if not self.urls:
            raise ValueError("name at least one NATS server, such as nats://127.0.0.1:4222")
        for url in self.urls:
            check_server(url)
        check_prefix(self.prefix)

    @property
    def tls(self) -> bool:
        """
        Whether every connection must use TLS: a URL begins with ``tls://``, or *tls_ca* or *tls_certificate* is set.
        """
        asked = self.tls_ca or self.tls_certificate
        return bool(asked) or any(urlsplit(url).scheme == "tls" for url in self.urls)

    def __repr__(self) -> str:
        return f"<NATSServers {' '.join(map(shown_server, self.urls))}>"


def check_credentials(text: str) -> str:
    """
    Return *text*, the content of a file of credentials, if it has all parts. nats-py would search forever for a missing
    token.

    :raises ValueError: if a part is missing. The error text shows nothing of *text*.
    """
    for part in ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"):
        if part not in text:
            raise ValueError(f"it holds no credentials for NATS, since there is no line {part}")
    return text


def check_server(url: str) -> str:
    """
    Return *url* if it is the URL of a NATS server.

    :raises ValueError: if it is not. The text says what to write, and contains no password.
    """
    if not is_server(url):
        raise ValueError(
            f"{url.rpartition('@')[2]!r} is not the URL of a NATS server; write one such as nats://127.0.0.1:4222"
        )
    return url


def is_server(url: str) -> bool:
    """Return whether *url* is the URL of a NATS server."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.path in ("", "/") and parts.port != 0
        return valid and not (parts.query or parts.fragment)
    except ValueError:
        return False


def shown_server(url: str) -> str:
    """
    Return *url* for the log: without user and password, with its port.

    >>> shown_server("nats://me:secret@example.com")
    'nats://example.com:4222'
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{parts.port or _DEFAULT_PORT}"
