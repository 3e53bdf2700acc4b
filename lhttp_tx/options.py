"""
The command line of ``twistd lhttp`` and ``twist lhttp``, turned into a :class:`~lhttp_tx.config.Config`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from lhttp_tx.access import host_name
from lhttp_tx.auth.login import COMMAND
from lhttp_tx.auth_options import AUTH_FLAGS, AuthOptions, auth_parameters
from lhttp_tx.bus.servers import NATSServers, check_server
from lhttp_tx.community_options import COMMUNITY_FLAGS, CommunityOptions, community_parameters
from lhttp_tx.config import Config
from lhttp_tx.interfaces import IAuthenticator, IHeaderFilter, IHooks, IProcessor
from lhttp_tx.limits import Limits
from lhttp_tx.loading import load_object, load_plugins
from lhttp_tx.processors import Registry
from lhttp_tx.proxies import TrustedProxies
from lhttp_tx.rules import Rules
from lhttp_tx.settings import Sources
from lhttp_tx.targets import TargetPolicy

__all__ = ["Options"]

TOKEN_VARIABLE = "LHTTP_PUBLISH_TOKEN"  # noqa: S105 - the name of a variable
_MIN_TOKEN_SIZE = 16
_BACKLOG = 1024


def _number(kind: type, low: float, high: float) -> Callable[[str], Any]:
    """Return a coercion that takes numbers from *low* to *high*."""

    def coerce(value: str) -> Any:
        try:
            number = kind(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a number") from None
        if not low <= number <= high:
            raise ValueError(f"{value} is not from {low} to {high}")
        return number

    coerce.coerceDoc = f"A number from {low} to {high}."  # type: ignore[attr-defined]
    return coerce


_SIZE = _number(int, 1, 2**31 - 1)
_COUNT = _number(int, 1, 1_000_000)
_COUNT_OR_NONE = _number(int, 0, 1_000_000)
_WORKERS = _number(int, 1, 256)
_BYTE_RATE = _number(int, 0, 2**31 - 1)
_SECONDS = _number(float, 0.1, 86_400)


def _ping_interval(value: str) -> float:
    interval: float = _number(float, 0, 86_400)(value)
    if 0 < interval < 1:
        raise ValueError(f"{value} is not from 1 to 86400, nor 0")
    return interval


_ping_interval.coerceDoc = "A number from 1 to 86400, or 0."  # type: ignore[attr-defined]


def _rate(value: str) -> float:
    rate: float = _number(float, 0, 1_000_000)(value)
    if 0 < rate < 0.1:
        raise ValueError(f"{value} is not from 0.1 to 1000000, nor 0")
    return rate


_rate.coerceDoc = "A number from 0.1 to 1000000, or 0."  # type: ignore[attr-defined]


_NATS_OPTIONS = (
    *("nats-user", "nats-password-file", "nats-token-file", "nats-credentials"),
    *("nats-tls-ca", "nats-tls-certificate", "nats-tls-key", "nats-local-delivery"),
)
_NATS_PAIRS = (
    ("nats-user", "nats-password-file"),
    ("nats-password-file", "nats-user"),
    ("nats-tls-key", "nats-tls-certificate"),
)


def _tcp(port: str) -> str:
    """Return the endpoint for a port on all interfaces, with room for many who connect at the same moment."""
    return f"tcp:{port}:backlog={_BACKLOG}"


class Options(AuthOptions, CommunityOptions, usage.Options):
    """
    Options of the server.

    :ivar config: the settings, once the command line is parsed.
    :ivar processors: the processors that ``--processor`` named, then the installed plugins.
    :ivar arguments: the command line as it was.
    :ivar environment: the environment variables.
    :ivar sources: the configuration file and the environment, as they were read.
    :ivar filters: the filters that ``--filter`` named, then the installed plugins.
    """

    synopsis = "[options]"
    longdesc = (
        "A publish/subscribe server for LHTTP, an HTTP-like text protocol over WebSocket. Without options it serves "
        "ws://HOST:8081/ on all interfaces, with an in-memory bus; programs on this machine can publish with "
        "POST http://127.0.0.1:8081/publish. TLS: --listen ssl:8443:privateKey=key.pem:certKey=cert.pem"
    )

    optFlags = [
        ["deflate", None, "Let clients ask for the WebSocket extension permessage-deflate."],
        ["demo", None, "Serve a chat page at /."],
        ["no-gzip", None, "Do not let clients ask for gzip-compressed messages."],
        ["no-plugins", None, "Do not look for processors and filters among Twisted plugins."],
        ["nats-local-delivery", None, "While NATS is away, deliver on this node alone instead of refusing."],
        ["upstream-public-only", None, "Refuse backends at private and loopback addresses."],
        *AUTH_FLAGS,
        *COMMUNITY_FLAGS,
    ]

    optParameters = [
        ["config", None, None, "File with options and channel rules, in TOML"],
        ["port", "p", None, "TCP port on all interfaces, or an endpoint description [default: 8081]"],
        ["workers", None, 1, "Processes that share the port; more than one need --nats", _WORKERS],
        ["publish-token-file", None, None, f"File with the secret for POST /publish [default: ${TOKEN_VARIABLE}]"],
        ["max-message-size", None, 65_536, "Bytes of a message", _SIZE],
        ["max-head-size", None, 8_192, "Bytes of a message's start line and headers", _SIZE],
        ["max-headers", None, 64, "Headers of a message", _COUNT],
        ["max-connections", None, 10_000, "WebSocket connections at one time, 0 for no limit", _COUNT_OR_NONE],
        ["max-per-address", None, 200, "WebSocket connections of one address, 0 for no limit", _COUNT_OR_NONE],
        ["max-pending", None, 2_000, "Connections that are no WebSocket yet, 0 for no limit", _COUNT_OR_NONE],
        ["max-rate", None, 0.0, "Messages a second of a connection before reading pauses, 0 for no limit", _rate],
        ["max-burst", None, 0, "Messages it may send at once, 0 for one second's at --max-rate", _COUNT_OR_NONE],
        ["max-byte-rate", None, 0, "Bytes a second of a connection before reading pauses, 0 for no limit", _BYTE_RATE],
        ["max-errors", None, 100, "Errors in a row after which a connection is closed, 0 for never", _COUNT_OR_NONE],
        ["max-subscriptions", None, 128, "Channels that a connection may be subscribed to", _COUNT],
        ["max-queue", None, 64, "Messages of a connection that may wait before reading pauses", _COUNT],
        ["max-unsent", None, 1_048_576, "Bytes that may wait for a slow client before it is closed", _SIZE],
        ["processor-timeout", None, 30.0, "Seconds that a processor may take for a message", _SECONDS],
        ["ping-interval", None, 30.0, "Seconds between pings, 0 for none", _ping_interval],
        ["ping-timeout", None, 10.0, "Seconds in which a ping must be answered", _SECONDS],
        ["handshake-timeout", None, 5.0, "Seconds in which an opening handshake must be complete", _SECONDS],
        ["close-timeout", None, 1.5, "Seconds in which a client must answer a close", _SECONDS],
        ["drain-timeout", None, 3.0, "Seconds in which what is in hand is finished on SIGTERM", _SECONDS],
        ["manhole", None, None, "Python prompt over SSH: a port on the loopback interface, or an endpoint description"],
        ["manhole-keys", None, None, "File with the public keys of those who may use it (authorized_keys)"],
        ["manhole-host-key", None, None, "File with its own key, made if missing [default: a new key each start]"],
        ["nats-prefix", None, "lhttp.", "What NATS subjects begin with before the channel's name, or nothing"],
        ["nats-user", None, None, "User to log in to NATS as"],
        ["nats-password-file", None, None, "File with the password of --nats-user"],
        ["nats-token-file", None, None, "File with a token to log in to NATS with"],
        ["nats-credentials", None, None, "File with a JWT and a seed (.creds) to log in to NATS with"],
        ["nats-tls-ca", None, None, "File with certificates of authorities to trust for NATS"],
        ["nats-tls-certificate", None, None, "File with the certificate that NATS is shown"],
        ["nats-tls-key", None, None, "File with the key of --nats-tls-certificate"],
        ["upstream-timeout", None, 10.0, "Seconds that a backend may take to answer", _SECONDS],
        ["upstream-max-response", None, 65_536, "Bytes of a backend's answer", _SIZE],
        ["upstream-max-in-flight", None, 100, "Requests to backends under way at one time", _COUNT],
        ["upstream-max-failures", None, 5, "Failures in a row that rule a backend out, 0 for never", _COUNT_OR_NONE],
        ["upstream-cool-down", None, 10.0, "Seconds for which it is not asked then", _SECONDS],
        *auth_parameters(_SECONDS, _COUNT),
        *community_parameters(_COUNT_OR_NONE),
    ]

    compData = usage.Completions(
        optActions={"config": usage.CompleteFiles(), "publish-token-file": usage.CompleteFiles()}
    )

    installs_reactor = True
    """Whether the reactor that the options need is installed."""

    secret_variables: Mapping[str, str] = {"publish-token-file": TOKEN_VARIABLE}
    """Environment variables that hold a secret, each under the option that names a file with it."""

    config: Config

    def __init__(self) -> None:
        super().__init__()
        self.processors: list[IProcessor] = []
        self.filters: list[IHeaderFilter] = []
        self._listen: list[str] = []
        self._origins: list[str] = []
        self._server_names: list[str] = []
        self._upstream: list[str] = []
        self._proxies: list[str] = []
        self._nats: list[str] = []
        self.environment: Mapping[str, str] = os.environ

    def parseOptions(self, options: list[str] | None = None) -> None:
        """
        Read the file that ``--config`` names, then the environment, then the command line, and keep it for the workers.

        :raises UsageError: if something makes no sense; the text says where it stands and what to do.
        """
        self.arguments = list(sys.argv[1:] if options is None else options)
        self.sources = Sources(self, secrets=self.secret_variables)
        if "--_shell-completion" not in self.arguments:
            self.sources.apply(self.arguments, self.environment)
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise usage.UsageError(self.sources.located(str(error))) from None

    def opt_listen(self, description: str) -> None:
        """Endpoint description to listen on: tcp, ssl, unix, systemd ... (repeatable), such as unix:/run/lhttp.sock"""
        self._check_endpoint("--listen", description)
        self._listen.append(description)

    def opt_nats(self, url: str) -> None:
        """NATS server to share all channels with other nodes through, such as nats://127.0.0.1:4222 (repeatable)"""
        try:
            self._nats.append(check_server(url))
        except ValueError as error:
            raise usage.UsageError(f"--nats {error}") from None

    def opt_processor(self, name: str) -> None:
        """Processor to load: package.module:Name or path/to/file.py:Name (repeatable)"""
        self.processors.append(self._load(name, IProcessor))

    def opt_filter(self, name: str) -> None:
        """Header filter to load: package.module:Name or path/to/file.py:Name (repeatable)"""
        self.filters.append(self._load(name, IHeaderFilter))

    def opt_allow_origin(self, origin: str) -> None:
        """Origin of pages on another host that may connect, such as https://app.example, or * for all (repeatable)"""
        if origin != "*" and "://" not in origin and origin != "null":
            raise usage.UsageError(f"--allow-origin {origin!r}: write scheme and host, such as https://{origin}")
        self._origins.append(origin.rstrip("/"))

    def opt_server_name(self, name: str) -> None:
        """Name that the server answers to, beside localhost; requests for other hosts are refused (repeatable)"""
        found = host_name(name)
        if found is None:
            raise usage.UsageError(f"--server-name {name!r}: write a host name, such as chat.example")
        self._server_names.append(found)

    def opt_trusted_proxy(self, name: str) -> None:
        """Proxy whose X-Forwarded-For is believed: an address, a network such as 10.0.0.0/8, or unix for whoever comes
        through a UNIX socket (repeatable)
        """
        try:
            TrustedProxies([name])
        except ValueError as error:
            raise usage.UsageError(f"--trusted-proxy {error}") from None
        self._proxies.append(name)

    def opt_upstream_allow(self, url: str) -> None:
        """URL of a backend that clients may name, with all paths below it, such as http://backend.example:8000/record
        (repeatable)
        """
        try:
            TargetPolicy([url])
        except ValueError as error:
            raise usage.UsageError(f"--upstream-allow: {error}") from None
        self._upstream.append(url)

    def opt_version(self) -> None:
        """Print the version of the server and of Twisted, then exit"""
        from lhttp_tx import __version__

        print("lhttp_tx", __version__)  # noqa: T201
        super().opt_version()

    def postOptions(self) -> None:
        """
        Check the options together and make :attr:`config`.

        :raises UsageError: if they do not fit; the text says what to do.
        """
        if self["max-head-size"] > self["max-message-size"]:
            raise usage.UsageError("--max-head-size is larger than --max-message-size; lower it, or raise the other")
        if self["max-burst"] and not self["max-rate"]:
            raise usage.UsageError("--max-burst is for connections with a limit: set --max-rate, too")
        if not self["no-plugins"]:
            self.processors.extend(load_plugins(IProcessor))
            self.filters.extend(load_plugins(IHeaderFilter))
        self.make_authenticators(
            [] if self["no-plugins"] else load_plugins(IAuthenticator), any_origin="*" in self._origins
        )
        registry = Registry()
        for processor in self.processors:
            try:
                registry.add(processor)
            except ValueError as error:
                raise usage.UsageError(
                    f"{error}; leave one out (--no-plugins leaves out those that are installed)"
                ) from None
        if self.authenticators and registry.get(COMMAND) is not None:
            raise usage.UsageError(
                f"{registry.get(COMMAND)!r} has the command {COMMAND!r}, which is the server's own where clients log in"
            )
        rules = self._rules()
        community = self.community_settings(
            [] if self["no-plugins"] else load_plugins(IHooks),
            processors=registry,
            rules=rules,
            knows_users=bool(self.authenticators),
        )
        self.config = Config(
            listen=self._endpoints(),
            limits=Limits(
                message_size=self["max-message-size"],
                head_size=self["max-head-size"],
                header_count=self["max-headers"],
                queue_length=self["max-queue"],
                subscription_count=self["max-subscriptions"],
                unsent_size=self["max-unsent"],
                message_rate=self["max-rate"],
                message_burst=self["max-burst"],
                byte_rate=self["max-byte-rate"],
                error_count=self["max-errors"],
                processor_timeout=self["processor-timeout"],
            ),
            max_connections=self["max-connections"],
            max_per_address=self["max-per-address"],
            max_pending=self["max-pending"],
            trusted_proxies=tuple(self._proxies),
            ping_interval=self["ping-interval"],
            ping_timeout=self["ping-timeout"],
            handshake_timeout=self["handshake-timeout"],
            close_timeout=self["close-timeout"],
            drain_timeout=self["drain-timeout"],
            allow_origins=tuple(self._origins),
            server_names=tuple(self._server_names),
            publish_token=self._token(),
            upstream_allow=tuple(self._upstream),
            upstream_public_only=bool(self["upstream-public-only"]),
            upstream_timeout=self["upstream-timeout"],
            upstream_max_response=self["upstream-max-response"],
            upstream_max_in_flight=self["upstream-max-in-flight"],
            upstream_max_failures=self["upstream-max-failures"],
            upstream_cool_down=self["upstream-cool-down"],
            allow_anonymous=bool(self["allow-anonymous"]),
            login_timeout=self["login-timeout"],
            max_failed_logins=self["max-failed-logins"],
            auth_timeout=self["auth-timeout"],
            auth_max_in_flight=self["auth-max-in-flight"],
            rules=rules,
            **community,
            nats=self._nats_servers(),
            deflate=bool(self["deflate"]),
            gzip=not self["no-gzip"],
            manhole=self._manhole(),
            manhole_keys=self["manhole-keys"] or "",
            manhole_host_key=self["manhole-host-key"],
            demo=bool(self["demo"]),
        )

    def _rules(self) -> Rules | None:
        file = self.sources.file
        if file is None:
            return None
        file.check_identities(bool(self.authenticators))
        return file.rules

    def _endpoints(self) -> tuple[str, ...]:
        port = self["port"]
        if port is None:
            return tuple(self._listen) or (_tcp("8081"),)
        if port.isascii() and port.isdigit():
            if int(port) > 65_535:
                raise usage.UsageError(f"--port {port}: a port is a number from 0 to 65535")
            return (_tcp(port), *self._listen)
        if ":" not in port:
            raise usage.UsageError(f"--port {port!r}: write a number, or an endpoint such as tcp:8081")
        self._check_endpoint("--port", port)
        return (port, *self._listen)

    def _check_endpoint(self, option: str, description: str) -> None:
        try:
            serverFromString(None, description)  # it keeps the reactor for later
        except Exception as error:
            raise usage.UsageError(
                f"{option} {description!r}: {error}; write an endpoint such as tcp:8081:interface=127.0.0.1"
            ) from None

    def _manhole(self) -> str | None:
        listen, keys = self["manhole"], self["manhole-keys"]
        if listen is None:
            return None
        if importlib.util.find_spec("bcrypt") is None:
            raise usage.UsageError("--manhole needs more of Twisted: pip install 'lhttp_tx[manhole]'")
        if keys is None:
            raise usage.UsageError("--manhole: say who may come in, with --manhole-keys ~/.ssh/authorized_keys")
        if self["workers"] > 1:
            raise usage.UsageError("--manhole looks into one process: leave out --workers")
        _secret("--manhole-keys", keys)
        if listen.isascii() and listen.isdigit():
            return f"tcp:{listen}:interface=127.0.0.1"
        self._check_endpoint("--manhole", listen)
        return str(listen)

    def _nats_servers(self) -> NATSServers | None:
        if not self._nats:
            if self["workers"] > 1:
                raise usage.UsageError("--workers share their channels through NATS: name a server with --nats")
            for name in _NATS_OPTIONS:
                if self[name]:
                    raise usage.UsageError(f"--{name} is for NATS: name a server with --nats")
            return None
        for name, other in _NATS_PAIRS:
            if self[name] and not self[other]:
                raise usage.UsageError(f"--{name} goes with --{other}: give both")
        for name in ("nats-credentials", "nats-tls-ca", "nats-tls-certificate", "nats-tls-key"):
            if self[name]:
                _secret(f"--{name}", self[name])
        try:
            servers = NATSServers(
                tuple(self._nats),
                prefix=self["nats-prefix"],
                user=self["nats-user"],
                password=_secret("--nats-password-file", self["nats-password-file"]),
                token=_secret("--nats-token-file", self["nats-token-file"]),
                credentials_file=self["nats-credentials"],
                tls_ca=self["nats-tls-ca"],
                tls_certificate=self["nats-tls-certificate"],
                tls_key=self["nats-tls-key"],
                local_delivery=bool(self["nats-local-delivery"]),
            )
        except ValueError as error:
            raise usage.UsageError(f"--nats-prefix {error}") from None
        _find_nats()
        if self.installs_reactor:
            _use_asyncio_reactor()
        return servers

    def _token(self) -> bytes | None:
        path = self["publish-token-file"]
        if path is None:
            token, source = os.environb.get(TOKEN_VARIABLE.encode()), f"${TOKEN_VARIABLE}"
            if token is None:
                return None
        else:
            source = path
            try:
                token = Path(path).read_bytes()
            except OSError as error:
                raise usage.UsageError(f"--publish-token-file: {error}") from None
        token = token.strip()
        if len(token) < _MIN_TOKEN_SIZE:
            raise usage.UsageError(f"the token in {source} is shorter than {_MIN_TOKEN_SIZE} bytes; make a longer one")
        return token

    def _load(self, name: str, interface: Any) -> Any:
        try:
            return load_object(name, interface)
        except ValueError as error:
            raise usage.UsageError(str(error)) from None


def _secret(option: str, path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise usage.UsageError(f"{option}: {error}") from None


def _find_nats() -> None:
    if importlib.util.find_spec("nats") is None:
        raise usage.UsageError("--nats needs nats-py: pip install 'lhttp_tx[nats]'")


def _use_asyncio_reactor() -> None:
    """Install the reactor that nats-py needs, unless it is there; twistd imports its default only after this."""
    from twisted.internet import asyncioreactor

    installed = sys.modules.get("twisted.internet.reactor")
    if installed is None:
        asyncioreactor.install()
    elif not isinstance(installed, asyncioreactor.AsyncioSelectorReactor):
        raise usage.UsageError("--nats needs the asyncio reactor: twistd --reactor=asyncio lhttp --nats ...")
