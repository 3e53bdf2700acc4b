"""
What the twistd plugin names: options, and the service made of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService

from lhttp_tx.config import Config
from lhttp_tx.options import Options
from lhttp_tx.reloading import RulesReloader
from lhttp_tx.rules import Rules
from lhttp_tx.service import LHTTPService
from lhttp_tx.signals import stop_once
from lhttp_tx.supervisor import Supervisor

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """Return the service that *options* describe, not started: a server, or what watches over several."""
    reactor = installed_reactor()
    stop_once(reactor)
    count = options["workers"]
    config = options.config
    if count == 1:
        server = make_server(options, reactor)
        service = server if config.manhole is None else _with_manhole(server, config, reactor)
        return with_reload(service, options, server.set_rules, reactor)
    supervisor = Supervisor(
        options.arguments,
        reactor=reactor,
        listen=config.listen,
        count=count,
        directory=str(Path.cwd()),
        exit_timeout=config.drain_timeout + config.close_timeout,
    )
    return with_reload(supervisor, options, lambda _: supervisor.send_signal("HUP"), reactor)


def with_reload(service: IService, options: Options, use: Callable[[Rules], object], reactor: Any) -> IService:
    """
    Return a service, and with it what reads the channel rules again on SIGHUP, where they are in a file.

    :param use: called with the new rules.
    """
    if options.sources.file is None:
        return service
    both = MultiService()
    service.setServiceParent(both)
    reloader = RulesReloader(options.sources.file, use, reactor=reactor, identities=bool(options.authenticators))
    reloader.setServiceParent(both)
    return both


def _with_manhole(server: LHTTPService, config: Config, reactor: Any) -> IService:
    from lhttp_tx.manhole import ManholeService  # needs what is not always installed

    assert config.manhole is not None
    both = MultiService()
    server.setServiceParent(both)
    ManholeService(
        reactor=reactor,
        listen=config.manhole,
        authorized_keys=config.manhole_keys,
        host_key=config.manhole_host_key,
        namespace={"server": server, "engine": server.engine},
    ).setServiceParent(both)
    return both


def installed_reactor() -> Any:
    """Return the reactor, as the last one: options that are read before may choose which one it is."""
    from twisted.internet import reactor  # noqa: TID251 - nowhere else

    return reactor


def make_server(options: Options, reactor: Any, **settings: Any) -> LHTTPService:
    """
    Return the server that *options* describe, not started.

    :param options: the command line, parsed.
    :param reactor: the running reactor.
    :param settings: passed on to :class:`~lhttp_tx.service.LHTTPService`.
    """
    return LHTTPService(
        options.config,
        reactor=reactor,
        processors=options.processors,
        filters=options.filters,
        authenticators=options.authenticators,
        hooks=options.hooks,
        **settings,
    )
