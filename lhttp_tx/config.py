"""
What an operator can set, in one frozen value.

:mod:`lhttp_tx.options` makes one from the command line; an embedder writes one down. :mod:`lhttp_tx.service` reads it.
"""

from dataclasses import dataclass

from lhttp_tx.bus.servers import NATSServers
from lhttp_tx.limits import DEFAULT_LIMITS, Limits
from lhttp_tx.rules import Rules

__all__ = ["Config"]


@dataclass(frozen=True, slots=True)
class Config:
    """
    The settings of one server. Sizes are bytes, times are seconds.

    :ivar listen: endpoint descriptions (:func:`twisted.internet.endpoints.serverFromString`); none for a server that
        is mounted into another's site.
    :ivar limits: the bounds of a message and of a connection.
    :ivar max_connections: WebSocket connections at one time; 0: no limit.
    :ivar max_per_address: those of one address, or one IPv6 network (/64); 0: no limit. Loopback addresses have none.
    :ivar max_pending: connections at one time that are no WebSocket, or not yet; 0: no limit.
    :ivar trusted_proxies: addresses and networks of proxies whose ``X-Forwarded-For`` is believed; ``unix``: whoever
        comes through a UNIX socket.
    :ivar ping_interval: time between pings; 0: none.
    :ivar ping_timeout: time in which a ping must be answered.
    :ivar handshake_timeout: time in which an opening handshake must be complete.
    :ivar close_timeout: time in which a client must answer a close.
    :ivar drain_timeout: time in which what is in hand must be finished when the server stops.
    :ivar allow_origins: origins of pages on other hosts that may connect; ``*``: all.
    :ivar server_names: the names that the server answers to beside loopback names; none: any, or loopback names alone
        where it listens on the loopback interface alone.
    :ivar publish_token: the secret for ``POST /publish``; ``None``: only programs on this machine may use it.
    :ivar upstream_allow: URLs of backends that clients may name; none: upstream is off.
    :ivar upstream_public_only: whether backends at private and loopback addresses are refused.
    :ivar upstream_timeout: time that a backend may take for its whole answer.
    :ivar upstream_max_response: size of an answer's body.
    :ivar upstream_max_in_flight: requests to backends under way at one time; each connection has one at most.
    :ivar upstream_max_failures: failures in a row after which a backend is not asked for a while; 0: it always is.
    :ivar upstream_cool_down: time for which it is not asked then.
    :ivar allow_anonymous: whether clients without credentials come in where there are authenticators.
    :ivar login_timeout: time in which a client that came without credentials must send a login message; 0: it does not
        come in.
    :ivar max_failed_logins: failed login messages of one connection, after which it is closed.
    :ivar auth_timeout: time that an authenticator may take.
    :ivar auth_max_in_flight: handshakes and login messages that may wait for authenticators at one time.
    :ivar rules: who may do what in which channels; ``None``: everybody everything, and no rules are put in force later.
    :ivar presence: patterns of channels of which it is known who is there, beside those of the rules.
    :ivar presence_grace: time that somebody may be gone before it counts as leaving.
    :ivar max_per_user: connections of one user; the oldest beyond that are closed. 0: no limit.
    :ivar login_parameter: the query parameter that says what a client is called where nobody logs in.
    :ivar wait_timeout: time that a message may wait for those before it; 0: any time.
    :ivar nats: the NATS that this server shares all channels with others through; ``None``: it is alone.
    :ivar deflate: whether clients may ask for the WebSocket extension permessage-deflate.
    :ivar gzip: whether clients may ask for gzip-compressed messages.
    :ivar manhole: the endpoint of a Python prompt in the process, over SSH; ``None``: there is none.
    :ivar manhole_keys: the file with the public keys of those who may use it.
    :ivar manhole_host_key: the file with its private key, made if it is missing; ``None``: a new key each start.
    :ivar demo: whether a chat page is at ``/``.
    """

    listen: tuple[str, ...] = ()
    limits: Limits = DEFAULT_LIMITS
    max_connections: int = 10_000
    max_per_address: int = 200
    max_pending: int = 2_000
    trusted_proxies: tuple[str, ...] = ()
    ping_interval: float = 30.0
    ping_timeout: float = 10.0
    handshake_timeout: float = 5.0
    close_timeout: float = 1.5
    drain_timeout: float = 3.0
    allow_origins: tuple[str, ...] = ()
    server_names: tuple[str, ...] = ()
    publish_token: bytes | None = None
    upstream_allow: tuple[str, ...] = ()
    upstream_public_only: bool = False
    upstream_timeout: float = 10.0
    upstream_max_response: int = 65_536
    upstream_max_in_flight: int = 100
    upstream_max_failures: int = 5
    upstream_cool_down: float = 10.0
    allow_anonymous: bool = False
    login_timeout: float = 0.0
    max_failed_logins: int = 3
    auth_timeout: float = 5.0
    auth_max_in_flight: int = 100
    rules: Rules | None = None
    presence: tuple[str, ...] = ()
    presence_grace: float = 3.0
    max_per_user: int = 0
    login_parameter: str | None = None
    wait_timeout: float = 0.0
    nats: NATSServers | None = None
    deflate: bool = False
    gzip: bool = True
    manhole: str | None = None
    manhole_keys: str = ""
    manhole_host_key: str | None = None
    demo: bool = False

    def __repr__(self) -> str:
        return f"<Config listen={self.listen!r}>"
