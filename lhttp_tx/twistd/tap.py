"""
The entry points of the twistd plugin: the options, and the service made from them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from lhttp_tx.codec.defaults import DefaultHeaders
from lhttp_tx.observe.stalls import StallWatch
from lhttp_tx.ports.certificates import Certificates
from lhttp_tx.ports.starting import freeze_when, one_by_one
from lhttp_tx.rules.model import Rules
from lhttp_tx.service import LHTTPService
from lhttp_tx.twistd.fresh import Freshener
from lhttp_tx.twistd.mishaps import check_places, end_if_not_started, explain_failures, owners_of
from lhttp_tx.twistd.notify import Notifier
from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.plugin_cache import forget_unwritten
from lhttp_tx.twistd.reloading import RulesReloader
from lhttp_tx.twistd.renewal import renewal_of
from lhttp_tx.twistd.signals import attend_signals
from lhttp_tx.twistd.supervisor import Supervisor
from lhttp_tx.twistd.topics.admin import AdminSettings
from lhttp_tx.twistd.topics.manhole import ManholeSettings
from lhttp_tx.twistd.upgrade import Places, Prepared
from lhttp_tx.web.admin.keys import AdminKey
from lhttp_tx.web.admin.managed import Siblings
from lhttp_tx.web.admin.service import AdminService

__all__ = ["Options", "makeService"]

_log = Logger()


def makeService(options: Options) -> IService:
    """Return the service that *options* describe, not started: a server, or a supervisor of several."""
    reactor = installed_reactor()
    check_places(options.parent)
    explain_failures(reactor)
    hurry: list[Callable[[], bool]] = []
    shares = options.shares(options.config, has_bus=options.bus is not None)
    places = Places(
        options.config,
        reactor,
        path=options["upgrade"],
        shares=shares,
        hurry=hurry,
        owners=owners_of(options.parent),
    )
    attend_signals(reactor, hurry=lambda: any(call() for call in hurry))
    forget_unwritten()
    count = options["workers"]
    config = options.config
    for line in (*options.exposures, *options.idle):
        _log.warn("{line}", line=line)
    if count == 1:
        certificates = Certificates(places.make)
        server = make_server(options, reactor, make_endpoint=places.watched(certificates.endpoint))
        places.skip_delay = server.departure.skip_delay
        places.count_pending = lambda: server.factory.admission.pending
        renewal = renewal_of(options, server, certificates)
        hurry.append(server.departure.hurry)
        end_if_not_started(server.when_started(), reactor)
        freeze_when(server.when_started())
        service = server if options.manhole is None else _with_manhole(server, options.manhole, reactor, places)
        if options["reload"]:
            service = _with_freshener(service, Freshener(server, options.named, reactor=reactor))
        set_keys = None
        if options.admin is not None:
            admin = make_admin(options.admin, server, reactor, make_endpoint=places.watched(certificates.endpoint))
            renewal.add_admin(admin, certificates, options.admin.grpc)
            service, set_keys = AdministeredService(service, admin), admin.set_keys
        notifier = Notifier(reactor, server.when_started)
        service = with_reload(
            service,
            options,
            server.set_rules,
            reactor,
            use_defaults=server.parts.engine.use_defaults,
            notifier=notifier,
            set_keys=set_keys,
            renew=renewal.renew,
        )
        return _accompanied(service, options, reactor, notifier, *places.upgrades(server.when_started))
    supervisor = Supervisor(
        options.arguments,
        reactor=reactor,
        listen=(*config.listen, *config.tcp),
        for_first=() if options.admin is None else (options.admin.listen,),
        count=count,
        directory=str(Path.cwd()),
        exit_timeout=config.drain_delay + config.drain_time + config.drain_timeout + config.close_timeout,
        hang_timeout=options["worker-timeout"],
        broker=options.make_broker(reactor),
        make_endpoint=places.watched(places.make),
    )
    hurry.append(supervisor.hurry)
    notifier = Notifier(reactor, supervisor.when_started)

    def pass_on() -> bool:
        supervisor.send_signal("HUP")
        return True

    has_file = options.sources.file is not None
    service = with_reload(
        supervisor,
        options,
        lambda _: pass_on(),
        reactor,
        notifier=notifier,
        renew=(lambda: False) if has_file else pass_on,
    )
    return _accompanied(service, options, reactor, notifier, *places.upgrades(supervisor.when_started))


def _accompanied(
    service: IService, options: Options, reactor: Any, notifier: Notifier, *others_too: Service
) -> IService:
    """Return *service* together with the services that watch its process and notify the service manager."""
    others: list[Service] = [notifier] if "NOTIFY_SOCKET" in os.environ else []
    others += others_too
    if options["log-stalls"]:
        others.append(StallWatch(reactor, options["log-stalls"]))
    return Prepared(service, *others) if others else service


def _together(*services: IService) -> MultiService:
    both = MultiService()
    for service in services:
        service.setServiceParent(both)
    return both


class AdministeredService(MultiService):
    """A server and its admin side. The admin side answers until the server has stopped."""

    def __init__(self, server: IService, admin: Service) -> None:
        """
        :param server: the server.
        :param admin: its admin side, or this worker's part of the admin side.
        """
        super().__init__()
        server.setServiceParent(self)
        admin.setServiceParent(self)
        self._steps = server, admin

    def stopService(self) -> Deferred[None]:
        """Stop the server, then the admin side. The Deferred succeeds when both have stopped."""
        Service.stopService(self)
        return one_by_one([step.stopService for step in self._steps])


def make_admin(
    settings: AdminSettings, server: LHTTPService, reactor: Any, *, siblings: Siblings | None = None, **more: Any
) -> AdminService:
    """
    Return the admin side of a server.

    :param settings: its settings.
    :param server: the server.
    :param reactor: the running reactor.
    :param siblings: the workers of the same supervisor; ``None``: there is only one process.
    :param more: passed on to :class:`~lhttp_tx.web.admin.service.AdminService`.
    """
    return AdminService(
        reactor=reactor,
        parts=server.parts,
        listen=settings.listen,
        keys=settings.keys,
        server_names=server.config.server_names,
        count_pending=lambda: server.factory.admission.pending,
        siblings=siblings,
        grpc=settings.grpc,
        **more,
    )


def with_reload(
    service: IService,
    options: Options,
    use: Callable[[Rules], object],
    reactor: Any,
    *,
    use_defaults: Callable[[DefaultHeaders], object] = lambda defaults: None,
    notifier: Notifier | None = None,
    set_keys: Callable[[Iterable[AdminKey]], None] | None = None,
    renew: Callable[[], bool] = lambda: False,
) -> IService:
    """
    Return *service* with a service that reads channel rules, secrets, keys and certificates again on SIGHUP.

    :param use: called with the new rules.
    :param use_defaults: called with the new default headers.
    :param notifier: notifies the service manager of each reload; ``None``: no notifications.
    :param renew: reads secrets, keys and certificates again; returns whether there are any.
    :param set_keys: called with the new keys of the admin side; ``None`` if there is none.
    """
    reloader = RulesReloader(
        options.sources.file,
        use,
        reactor=reactor,
        identities=bool(options.authenticators),
        around=(lambda call: call()) if notifier is None else notifier.reloading,
        set_keys=set_keys,
        renew=renew,
        use_defaults=use_defaults,
    )
    return _together(service, reloader)


def _with_freshener(service: IService, freshener: Freshener) -> IService:
    both = MultiService()
    service.setServiceParent(both)
    freshener.setServiceParent(both)
    return both


def _with_manhole(server: LHTTPService, manhole: ManholeSettings, reactor: Any, places: Places) -> IService:
    from lhttp_tx.twistd.manhole import ManholeService  # needs optional packages

    both = MultiService()
    server.setServiceParent(both)
    ManholeService(
        reactor=reactor,
        listen=manhole.listen,
        authorized_keys=manhole.keys,
        host_key=manhole.host_key,
        namespace={"server": server, "engine": server.engine},
        make_endpoint=places.watched(places.make),
    ).setServiceParent(both)
    return both


def installed_reactor() -> Any:
    """Return the reactor. Call this only after the options are read, because they may choose the reactor."""
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
        bus=options.bus,
        **settings,
    )
