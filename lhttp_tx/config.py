"""
All settings of a server, in one frozen value.

:mod:`lhttp_tx.twistd.options` makes one from the command line; an embedding application makes its own.
:mod:`lhttp_tx.service` reads it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lhttp_tx.bus.nats.servers import NATSServers
from lhttp_tx.codec.bounds import (
    COUNT,
    COUNT_OR_NONE,
    GRACE,
    PING_INTERVAL,
    RATIO,
    REPLICAS,
    SECONDS,
    SECONDS_OR_NONE,
    SIZE,
    SIZE_OR_NONE,
    WAIT,
    Bound,
    check_fields,
)
from lhttp_tx.codec.defaults import NO_DEFAULTS, DefaultHeaders
from lhttp_tx.codec.limits import DEFAULT_LIMITS, Limits
from lhttp_tx.guard.access import check_token, origin_name, server_name
from lhttp_tx.guard.proxies import TrustedProxies
from lhttp_tx.history.values import DEFAULT_RETENTION, Retention
from lhttp_tx.identity import check_parameter
from lhttp_tx.observe.tracing.provider import check_collector, check_headers
from lhttp_tx.ports.sockets import is_unix
from lhttp_tx.rules.model import Rules, check_history, check_presence
from lhttp_tx.upstream.targets import TargetPolicy

__all__ = ["Config"]


@dataclass(frozen=True, slots=True)
class Config:
    """
    The settings of one server. Sizes are bytes, times are seconds.

    Each setting has the bounds of the command-line option with the same meaning. A value of a wrong type raises
    :exc:`TypeError` at once. A value that is out of bounds, malformed or without effect raises :exc:`ValueError`.

    :ivar listen: endpoint descriptions (:func:`twisted.internet.endpoints.serverFromString`); empty for a server that
        is mounted into another site.
    :ivar tcp: endpoint descriptions for LHTTP on a plain stream, without WebSocket; empty: there is none.
    :ivar limits: the limits of a message and of a connection.
    :ivar max_connections: connections of clients at one time; 0: no limit.
    :ivar max_per_address: connections of clients of one address, or of one IPv6 network (/64); 0: no limit. Loopback
        addresses have no limit.
    :ivar max_pending: connections at one time that have not opened a WebSocket. Beyond that, the server closes idle
        ones to make room. 0: no limit.
    :ivar trusted_proxies: addresses and networks of proxies whose ``X-Forwarded-For`` the server believes; ``unix``
        stands for every client of a UNIX socket.
    :ivar ping_interval: time between pings; 0: none.
    :ivar ping_timeout: time within which the client must answer a ping.
    :ivar handshake_timeout: time within which an opening handshake must be complete.
    :ivar body_timeout: time within which the body of an HTTP request must be complete, including its trailer.
    :ivar http_lifetime: age at which the server closes a connection that is not a WebSocket, after its current request
        is answered.
    :ivar close_timeout: time within which a client must answer a close.
    :ivar drain_timeout: time within which the server must finish work in progress when it stops.
    :ivar drain_delay: time for which the server continues before it stops, while ``/ready`` answers with status 503; 0:
        none.
    :ivar drain_time: time over which the server then spreads the closes of its connections; 0: all at once.
    :ivar log_connections: the level, ``info`` or ``debug``, of log lines about each connection that opens and ends;
        ``None``: there are none.
    :ivar log_slow: time from which on a call of a processor is logged; 0: never.
    :ivar allow_origins: origins of pages on other hosts that may connect; ``*``: all.
    :ivar server_names: the host names that the server answers to, besides loopback names. If empty, it answers to any
        name, or only to loopback names if it listens only on the loopback interface.
    :ivar publish_token: the secret for ``POST /publish``; ``None``: only programs on this machine may publish.
    :ivar upstream_allow: URLs of backends that clients may name; empty: upstream is off.
    :ivar upstream_original: more URLs, of backends that were written for the original LHTTP server. They get only a
        message's body, and the message's headers as headers of the request.
    :ivar upstream_public_only: whether the server refuses backends at private and loopback addresses.
    :ivar upstream_timeout: time within which a backend must have sent its whole answer.
    :ivar upstream_max_response: the most bytes of an answer's body.
    :ivar upstream_max_in_flight: requests to backends under way at one time; each connection has at most one.
    :ivar upstream_max_failures: consecutive failures after which the server stops calling a backend for some time; 0:
        never.
    :ivar upstream_cool_down: time for which the server then does not call the backend.
    :ivar allow_anonymous: whether clients without credentials may connect although there are authenticators.
    :ivar require_auth: whether :class:`~lhttp_tx.service.LHTTPService` raises an error if clients without credentials
        could connect.
    :ivar login_timeout: time within which a client that connects without credentials must send a login message; 0: such
        a client may not connect.
    :ivar max_failed_logins: failed login messages of one connection after which the server closes it.
    :ivar auth_timeout: time within which an authenticator must answer.
    :ivar auth_max_in_flight: handshakes and login messages that may wait for authenticators at one time.
    :ivar rules: who may do what in which channels. ``None``: everybody may do everything, and rules cannot be set
        later.
    :ivar default_headers: headers that the server adds to messages of a command that do not have them.
    :ivar presence: patterns of channels with presence, besides those of the rules.
    :ivar presence_grace: time for which a user may be gone before presence reports that the user has left.
    :ivar max_per_user: connections of one user. If there are more, the server closes the oldest ones. 0: no limit.
    :ivar login_parameter: the query parameter that holds a client's user name, on a server without authenticators.
    :ivar wait_timeout: time for which a message may wait for the messages before it; 0: no limit.
    :ivar nats: the NATS servers through which this server shares all channels with other nodes; ``None``: it has no
        other nodes.
    :ivar require_nodes: the number of nodes that should be connected, including this one. If fewer are, receipts and
        ``/health`` say so. 0: any number.
    :ivar close_after_gap: time within which the server closes, after a gap, the clients that may have missed
        publications and have not subscribed with ``gaps:tell``; 0: they stay.
    :ivar history: patterns of channels with history, besides those of the rules.
    :ivar retention: how much of these channels is kept.
    :ivar history_store: ``memory``, ``sqlite:PATH`` or, with *nats*, ``jetstream``; ``None``: ``jetstream`` with
        *nats*, otherwise ``memory``.
    :ivar history_size: the most bytes of all histories together; 0: 64 MiB in memory, 1 GiB on disk, and in JetStream
        the limit of NATS.
    :ivar history_replicas: the number of NATS servers that keep each message, in JetStream.
    :ivar history_in_memory: whether JetStream keeps messages in its memory, and not on disk.
    :ivar message_id_window: time for which the server knows a message id.
    :ivar deflate: whether clients may ask for the WebSocket extension permessage-deflate.
    :ivar events: whether clients without WebSocket are served: event streams at ``/events``, and whole clients at
        ``/connect`` and ``/send``.
    :ivar gzip: whether clients may ask for gzip-compressed messages.
    :ivar unix_mode: the mode of UNIX sockets. ``None``: 0660 if *unix_group* is set, otherwise the mode in their
        endpoint descriptions (0666 by default).
    :ivar unix_group: the name or number of the group of UNIX sockets; ``None``: the group of the process.
    :ivar plugins: settings for processors, filters, hooks and authenticators: one table for each name. Plugins read a
        table with :meth:`server.settings <lhttp_tx.running.RunningServer.settings>`. No error text shows its contents.
    :ivar demo: whether the server has a chat page at ``/``.
    :ivar metrics: whether the server collects metrics, for ``GET /metrics`` of the admin side.
    :ivar trace: gets spans for OpenTelemetry: the URL of a collector, or a ``TracerProvider``; ``None``: there are no
        spans.
    :ivar trace_ratio: the share of the messages without ``traceparent`` that are traced, from 0 to 1.
    :ivar trace_rate: the most messages a second that are traced.
    :ivar trace_headers: headers of requests to the collector. They may be secret.
    """

    listen: tuple[str, ...] = ()
    tcp: tuple[str, ...] = ()
    limits: Limits = DEFAULT_LIMITS
    max_connections: int = 10_000
    max_per_address: int = 200
    max_pending: int = 2_000
    trusted_proxies: tuple[str, ...] = ()
    ping_interval: float = 30.0
    ping_timeout: float = 10.0
    handshake_timeout: float = 5.0
    body_timeout: float = 20.0
    http_lifetime: float = 120.0
    close_timeout: float = 1.5
    drain_timeout: float = 3.0
    drain_delay: float = 0.0
    drain_time: float = 0.0
    log_connections: str | None = None
    log_slow: float = 0.0
    allow_origins: tuple[str, ...] = ()
    server_names: tuple[str, ...] = ()
    publish_token: bytes | None = None
    upstream_allow: tuple[str, ...] = ()
    upstream_original: tuple[str, ...] = ()
    upstream_public_only: bool = False
    upstream_timeout: float = 10.0
    upstream_max_response: int = 65_536
    upstream_max_in_flight: int = 100
    upstream_max_failures: int = 5
    upstream_cool_down: float = 10.0
    allow_anonymous: bool = False
    require_auth: bool = False
    login_timeout: float = 0.0
    max_failed_logins: int = 3
    auth_timeout: float = 5.0
    auth_max_in_flight: int = 100
    rules: Rules | None = None
    default_headers: DefaultHeaders = NO_DEFAULTS
    presence: tuple[str, ...] = ()
    presence_grace: float = 3.0
    max_per_user: int = 0
    login_parameter: str | None = None
    wait_timeout: float = 0.0
    nats: NATSServers | None = None
    require_nodes: int = 0
    close_after_gap: float = 0.0
    history: tuple[str, ...] = ()
    retention: Retention = DEFAULT_RETENTION
    history_store: str | None = None
    history_size: int = 0
    history_replicas: int = 1
    history_in_memory: bool = False
    message_id_window: float = 120.0
    deflate: bool = False
    gzip: bool = True
    events: bool = True
    demo: bool = False
    metrics: bool = False
    trace: Any = None
    trace_ratio: float = 0.0
    trace_rate: int = 100
    trace_headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    unix_mode: int | None = None
    unix_group: str | None = None
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    BOUNDS: ClassVar[Mapping[str, Bound]] = {
        "max_connections": COUNT_OR_NONE,
        "max_per_address": COUNT_OR_NONE,
        "max_pending": COUNT_OR_NONE,
        "ping_interval": PING_INTERVAL,
        "ping_timeout": SECONDS,
        "handshake_timeout": SECONDS,
        "body_timeout": SECONDS,
        "http_lifetime": SECONDS,
        "close_timeout": SECONDS,
        "drain_timeout": SECONDS,
        "drain_delay": SECONDS_OR_NONE,
        "drain_time": SECONDS_OR_NONE,
        "log_slow": GRACE,
        "upstream_timeout": SECONDS,
        "upstream_max_response": SIZE,
        "upstream_max_in_flight": COUNT,
        "upstream_max_failures": COUNT_OR_NONE,
        "upstream_cool_down": SECONDS,
        "login_timeout": SECONDS_OR_NONE,
        "max_failed_logins": COUNT,
        "auth_timeout": SECONDS,
        "auth_max_in_flight": COUNT,
        "presence_grace": GRACE,
        "max_per_user": COUNT_OR_NONE,
        "wait_timeout": WAIT,
        "require_nodes": COUNT_OR_NONE,
        "close_after_gap": SECONDS_OR_NONE,
        "history_size": SIZE_OR_NONE,
        "history_replicas": REPLICAS,
        "message_id_window": SECONDS,
        "trace_ratio": RATIO,
        "trace_rate": COUNT,
    }

    def __post_init__(self) -> None:
        check_fields(self, self.BOUNDS)
        for name in ("listen", "tcp"):
            if "" in getattr(self, name):
                raise ValueError(f"{name} holds an empty text; write an endpoint such as tcp:8081:interface=127.0.0.1")
        if self.log_connections not in (None, "info", "debug"):
            raise ValueError(f"log_connections is info, debug or None, not {self.log_connections!r}")
        _say("trusted_proxies:", TrustedProxies, self.trusted_proxies)
        _say("upstream_allow:", TargetPolicy, self.upstream_allow)
        for origin in self.allow_origins:
            _say("allow_origins holds", origin_name, origin)
        for name in self.server_names:
            _say("server_names holds", server_name, name)
        self._check_unix()
        for pattern in self.presence:
            _say("presence holds", check_presence, pattern)
        for pattern in self.history:
            _say("history holds", check_history, pattern)
        self._check_store()
        if self.login_parameter is not None:
            _say("login_parameter", check_parameter, self.login_parameter)
        if self.publish_token is not None:
            _say("publish_token", check_token, self.publish_token)
        self._check_trace()
        if self.allow_anonymous and self.login_timeout:
            raise ValueError("login_timeout is for clients that must log in: leave out allow_anonymous")

    def _check_store(self) -> None:
        store = self.history_store
        if store is None or store in ("memory", "jetstream") or (store.startswith("sqlite:") and len(store) > 7):
            if store == "jetstream" and self.nats is None:
                raise ValueError("history_store jetstream needs NATS: name a server")
            if store not in (None, "jetstream") and self.nats is not None:
                raise ValueError("the nodes of a cluster share their history, which is in JetStream")
            return
        raise ValueError(f"history_store {store!r} is not memory, sqlite:PATH or jetstream")

    def _check_trace(self) -> None:
        if isinstance(self.trace, str):
            _say("trace:", check_collector, self.trace)
            _say("trace_headers:", check_headers, self.trace_headers)
        elif self.trace_headers:
            raise ValueError("trace_headers are for a collector: set trace to its URL")
        elif self.trace is None and self.trace_ratio:
            raise ValueError("trace_ratio needs trace: where the spans go")
        elif self.trace is not None and not callable(getattr(self.trace, "get_tracer", None)):
            raise TypeError("trace is a URL, a TracerProvider of OpenTelemetry, or None")

    def _check_unix(self) -> None:
        if self.unix_mode is not None and self.unix_mode & ~0o177 != 0o600:
            raise ValueError("unix_mode is from 0o600 to 0o777, and the server itself needs to read and write")
        for name in ("unix_mode", "unix_group"):
            if getattr(self, name) is not None and not any(map(is_unix, (*self.listen, *self.tcp))):
                raise ValueError(f"{name} is for UNIX sockets: add unix:PATH to listen, or to tcp")

    def check_users(self, known: bool) -> None:
        """
        Check the settings that depend on users against the authenticators.

        :param known: whether there are authenticators.
        :raises ValueError: if ``login_parameter`` is set although there are authenticators, or if a setting needs to
            know users and nothing identifies them.
        """
        if known:
            if self.login_parameter is not None:
                raise ValueError("login_parameter is for servers without authentication: leave it out")
            return
        for name in ("allow_anonymous", "login_timeout"):
            if getattr(self, name):
                raise ValueError(f"{name} needs an authenticator: pass authenticators")
        if self.max_per_user and self.login_parameter is None:
            raise ValueError("max_per_user needs users: pass authenticators, or set login_parameter")
        rule = None if self.rules is None else self.rules.asking
        if rule is not None:
            raise ValueError(f"the rule for {rule.match!r} depends on the user: pass authenticators")

    def __repr__(self) -> str:
        return f"<Config listen={self.listen!r}>"


def _say(what: str, check: Callable[[Any], object], value: object) -> None:
    """Check a value. If it is not valid, name the setting in the error."""
    try:
        check(value)
    except ValueError as error:
        raise ValueError(f"{what} {error}") from None
