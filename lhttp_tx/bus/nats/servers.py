"""
The settings of the connection to NATS, made from an operator's options: a frozen value.

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
    One NATS system, given by some of its servers. Times are seconds, sizes are bytes.

    :ivar urls: ``nats://`` or ``tls://`` URLs of one or more servers. The node learns the other servers of their
        cluster from them. If one URL says ``tls://``, TLS is required with all servers.
    :ivar prefix: the prefix of every subject: tokens that end with a dot. An empty prefix shares channels with programs
        that use the bare names.
    :ivar user: the user to log in as, if the URL names none.
    :ivar password: the password for *user*.
    :ivar token: a token to log in with instead.
    :ivar credentials_file: a file with a user's JWT and seed (``.creds``) to log in with instead.
    :ivar tls_ca: a file with the certificates of authorities to trust, instead of the system's.
    :ivar tls_certificate: a file with this node's certificate.
    :ivar tls_key: a file with the key of *tls_certificate*, unless it is in the same file.
    :ivar local_delivery: whether the bus delivers publications on their own node alone while NATS is away. Otherwise it
        refuses them with status 503.
    :ivar name: the name of the node, by which NATS knows its connections.
    :ivar timeout: how long a subscription may wait for NATS. After that, the bus refuses it with status 503.
    :ivar pending_size: how many bytes may wait to be sent to NATS. Beyond that, the bus refuses publications with
        status 503.
    :ivar max_delay: seconds that a publication of another node may take longer than the quickest ones. Later ones are
        dropped. 0: any time.
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
        Whether every connection must be encrypted: true if a URL says ``tls://``, or if an option about TLS is set.
        """
        asked = self.tls_ca or self.tls_certificate
        return bool(asked) or any(urlsplit(url).scheme == "tls" for url in self.urls)

    def __repr__(self) -> str:
        return f"<NATSServers {' '.join(map(shown_server, self.urls))}>"


def check_credentials(text: str) -> str:
    """
    Return the content of a file with credentials. In one without a token, nats-py would look for it for ever.

    :raises ValueError: if a part is missing. The text shows none of it.
    """
    for part in ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"):
        if part not in text:
            raise ValueError(f"it holds no credentials for NATS, since there is no line {part}")
    return text


def check_server(url: str) -> str:
    """
    Return *url* if it names a NATS server.

    :raises ValueError: if it does not. The text says what to write, and holds no password.
    """
    if not is_server(url):
        raise ValueError(
            f"{url.rpartition('@')[2]!r} is not the URL of a NATS server; write one such as nats://127.0.0.1:4222"
        )
    return url


def is_server(url: str) -> bool:
    """Return whether *url* names a NATS server."""
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
