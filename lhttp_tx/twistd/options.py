"""
The command line of ``twistd lhttp`` and ``twist lhttp``, turned into a :class:`~lhttp_tx.config.Config`.

The options themselves are in :mod:`lhttp_tx.twistd.topics`, one module for each topic.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from twisted.logger import Logger
from twisted.python import usage

from lhttp_tx.auth.lobby import COMMAND
from lhttp_tx.codec.defaults import NO_DEFAULTS
from lhttp_tx.config import Config
from lhttp_tx.interfaces import IAuthenticator, IHeaderFilter, IHooks, IProcessor
from lhttp_tx.rules.model import Rules
from lhttp_tx.twistd.mishaps import give_up
from lhttp_tx.twistd.secrecy import find_exposures
from lhttp_tx.twistd.sources import Sources
from lhttp_tx.twistd.topics.admin import AdminOptions, AdminSettings
from lhttp_tx.twistd.topics.auth import AuthOptions
from lhttp_tx.twistd.topics.cluster import ClusterOptions, use_asyncio_reactor
from lhttp_tx.twistd.topics.community import CommunityOptions
from lhttp_tx.twistd.topics.history import HistoryOptions
from lhttp_tx.twistd.topics.limits import LimitOptions
from lhttp_tx.twistd.topics.listening import ListeningOptions
from lhttp_tx.twistd.topics.logs import LogOptions
from lhttp_tx.twistd.topics.manhole import ManholeOptions, ManholeSettings
from lhttp_tx.twistd.topics.plugins import PluginOptions
from lhttp_tx.twistd.topics.publishing import PublishingOptions
from lhttp_tx.twistd.topics.tracing import TracingOptions
from lhttp_tx.twistd.topics.upstream import UpstreamOptions

__all__ = ["Options"]

_log = Logger()


class Options(
    AdminOptions,
    AuthOptions,
    CommunityOptions,
    ClusterOptions,
    HistoryOptions,
    LimitOptions,
    ListeningOptions,
    LogOptions,
    ManholeOptions,
    PluginOptions,
    PublishingOptions,
    TracingOptions,
    UpstreamOptions,
    usage.Options,
):
    """
    Options of the server.

    :ivar admin: the settings of the admin side; set when the command line is parsed.
    :ivar config: the settings; set when the command line is parsed.
    :ivar manhole: the settings of the Python prompt; set when the command line is parsed.
    :ivar arguments: the original command line.
    :ivar sources: the configuration file and the environment, as they were read.
    :ivar exposures: warnings about secrets that other users of the machine can see, one line each.
    """

    synopsis = "[options]"
    longdesc = (
        "A publish/subscribe server for LHTTP, an HTTP-like text protocol over WebSocket. Without "
        "options it serves ws://HOST:8081/ on all interfaces and keeps channels in memory. "
        "Programs on this machine can publish with POST http://127.0.0.1:8081/publish. TLS: "
        "--listen ssl:8443:privateKey=key.pem:certKey=cert.pem"
    )

    optFlags = [
        ["asyncio", None, "Use the asyncio reactor, so that processors may await what asyncio's libraries return."],
        ["deflate", None, "Accept the WebSocket extension permessage-deflate from clients."],
        ["demo", None, "Serve a chat page at /."],
        ["no-events", None, "Do not serve clients without WebSocket: /events, /connect and /send."],
        ["no-gzip", None, "Do not offer gzip-compressed messages to clients."],
    ]

    optParameters = [["config", None, None, "Configuration file (TOML) with options and channel rules"]]

    compData = usage.Completions(
        optActions={"config": usage.CompleteFiles(), "publish-token-file": usage.CompleteFiles()}
    )

    config: Config

    admin: AdminSettings | None = None

    manhole: ManholeSettings | None = None

    def __init__(self) -> None:
        super().__init__()
        self.exposures: list[str] = []

    def parseOptions(self, options: list[str] | None = None) -> None:
        """
        Read the file of ``--config``, then the environment, then the command line. Keep the command line for the
        workers.

        :raises UsageError: if a value is not valid. The text says where it was set, and what to do.
        """
        try:
            self._parse(options)
        except usage.UsageError as error:
            if self.parent is None:
                raise
            give_up(str(error), self.longOpt)  # twistd would print its whole help

    def _parse(self, options: list[str] | None) -> None:
        self.arguments = list(sys.argv[1:] if options is None else options)
        self.sources = Sources(self, secrets=self.secret_variables)
        if "--_shell-completion" not in self.arguments:
            self.sources.apply(self.arguments, self.environment)
            self.tell_unknown(self.sources.unknown)
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise usage.UsageError(self.sources.located(str(error))) from None

    def tell_unknown(self, variables: Iterable[str]) -> None:
        """Warn about environment variables that look like options but are not."""
        for variable in variables:
            _log.warn("${variable} has no effect: there is no such option", variable=variable)

    def parseArgs(self, *arguments: str) -> None:
        """:raises UsageError: if there is an argument, because the server takes only options."""
        for argument in arguments:
            advice = f"to listen there, write --port {argument}" if argument.isdigit() else "all begin with --"
            raise usage.UsageError(f"{argument!r} is not an option; {advice}")

    def opt_version(self) -> None:
        """Print the version of the server and of Twisted, then exit"""
        from lhttp_tx import __version__

        print("lhttp_tx", __version__)  # noqa: T201
        super().opt_version()

    def postOptions(self) -> None:
        """
        Check the options together and make :attr:`config`.

        :raises UsageError: if they contradict each other. The text says what to do.
        """
        self.check_limits()
        self.check_logs()
        self.check_reload()
        self.processors.extend(self.plugins(IProcessor))
        self.filters.extend(self.plugins(IHeaderFilter))
        self.make_authenticators(self.plugins(IAuthenticator), any_origin="*" in self._origins)
        registry = self.register()
        if self.authenticators and registry.get(COMMAND) is not None:
            raise usage.UsageError(
                f"{registry.get(COMMAND)!r} has the command {COMMAND!r}, which the server handles if clients log in"
            )
        self.check_upstream()
        self.load_bus(nats=bool(self._nats))
        self.manhole = self.manhole_settings()
        rules = self._rules()
        community = self.community_settings(
            self.plugins(IHooks),
            processors=registry,
            rules=rules,
            knows_users=bool(self.authenticators),
        )
        has_nats = bool(self._nats) or self.has_own_broker
        history = self.history_settings(processors=registry, rules=rules, has_nats=has_nats)
        listen = self.endpoints()
        self.check_unix((*listen, *self._tcp))
        admin_keys = None if self.sources.file is None else self.sources.file.admin
        self.admin = self.admin_settings(admin_keys, (*listen, *self._tcp))
        self.config = Config(
            listen=listen,
            tcp=tuple(self._tcp),
            limits=self.limits(),
            max_connections=self["max-connections"],
            max_per_address=self["max-per-address"],
            max_pending=self["max-pending"],
            trusted_proxies=tuple(self._proxies),
            ping_interval=self["ping-interval"],
            ping_timeout=self["ping-timeout"],
            handshake_timeout=self["handshake-timeout"],
            body_timeout=self["body-timeout"],
            http_lifetime=self["http-lifetime"],
            close_timeout=self["close-timeout"],
            drain_timeout=self["drain-timeout"],
            drain_delay=self["drain-delay"],
            drain_time=self["drain-time"],
            log_connections=self["log-connections"],
            log_slow=self["log-slow"],
            allow_origins=tuple(self._origins),
            server_names=tuple(self._server_names),
            publish_token=self.publish_token(),
            upstream_allow=tuple(self._upstream),
            upstream_original=tuple(self._upstream_original),
            upstream_public_only=bool(self["upstream-public-only"]),
            upstream_timeout=self["upstream-timeout"],
            upstream_max_response=self["upstream-max-response"],
            upstream_max_in_flight=self["upstream-max-in-flight"],
            upstream_max_failures=self["upstream-max-failures"],
            upstream_cool_down=self["upstream-cool-down"],
            allow_anonymous=bool(self["allow-anonymous"]),
            require_auth=bool(self["require-auth"]),
            login_timeout=self["login-timeout"],
            max_failed_logins=self["max-failed-logins"],
            auth_timeout=self["auth-timeout"],
            auth_max_in_flight=self["auth-max-in-flight"],
            rules=rules,
            default_headers=NO_DEFAULTS if self.sources.file is None else self.sources.file.defaults,
            **community,
            **history,
            nats=self.nats_servers(),
            require_nodes=self["require-nodes"],
            close_after_gap=self["close-after-gap"],
            deflate=bool(self["deflate"]),
            gzip=not self["no-gzip"],
            events=not self["no-events"],
            demo=bool(self["demo"]),
            metrics=bool(self["metrics"]),
            **self.trace_settings(),
            unix_mode=self["unix-mode"],
            unix_group=self["unix-group"],
            plugins={} if self.sources.file is None else self.sources.file.plugins,
        )
        self.check_store(self.config)
        self.direct_log(self.parent if self.installs_reactor else None)
        if self.installs_reactor and (self["asyncio"] or self["grpc"] is not None):
            use_asyncio_reactor("--asyncio" if self["asyncio"] else "--grpc")
        self.exposures = find_exposures(
            self,
            nats=self._nats,
            auth=self._described,
            listen=(
                *(*self.config.listen, *self.config.tcp),
                *(() if self.admin is None else (self.admin.listen, self.admin.grpc or "")),
            ),
            arguments=self.arguments,
            config=None if self.sources.file is None else self.sources.file.path,
            origins=self.sources.origins,
            secret_keys=self._secret_keys,
            admin=() if self.sources.file is None else self.sources.file.admin.files,
        )

    def _rules(self) -> Rules | None:
        file = self.sources.file
        if file is None:
            return None
        file.check_identities(bool(self.authenticators))
        return file.rules
