"""
One worker of :mod:`lhttp_tx.twistd.supervisor`: ``python -m lhttp_tx.twistd.worker [options of twistd lhttp]``.

Users do not run it themselves. It gets the listening sockets from the supervisor, and logs events as JSON to the
standard output. It sends heartbeats to the supervisor (:mod:`lhttp_tx.twistd.watchdog`). It stops when its standard
input ends, because then the supervisor is gone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.internet.protocol import Protocol
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogBeginner
from twisted.python import usage
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.observe.events import name_of
from lhttp_tx.observe.lines import fields_of
from lhttp_tx.ports.adopting import AdoptingReactor
from lhttp_tx.ports.certificates import Certificates
from lhttp_tx.twistd.plugin_cache import tells_of_unwritten
from lhttp_tx.twistd.post import Post
from lhttp_tx.twistd.supervisor import FIRST_DESCRIPTOR
from lhttp_tx.twistd.watchdog import start_pulse
from lhttp_tx.web.admin.keys import AdminKey
from lhttp_tx.web.admin.managed import Siblings

if TYPE_CHECKING:
    from lhttp_tx.service import LHTTPService
    from lhttp_tx.twistd.options import Options
    from lhttp_tx.twistd.renewal import Renewal

__all__ = ["main"]


class _Lifeline(Protocol):
    """Stops the worker when its standard input ends, because the supervisor is gone."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._reactor.running:
            self._reactor.stop()


@implementer(ILogObserver)
def _log_line(event: LogEvent) -> None:
    """Write a log event for the supervisor, in one line."""
    if tells_of_unwritten(event):
        return
    line = {
        "text": eventAsText(event, includeTimestamp=False, includeSystem=False),
        "level": event["log_level"].name,
        "namespace": event.get("log_namespace", "-"),
        "time": event["log_time"],
        "event": name_of(event),
        "fields": fields_of(event),
    }
    if "log_failure" in event:
        line["traceback"] = event["log_failure"].getTraceback()
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _tell_started() -> None:
    sys.stdout.write('{"started": true}\n')
    sys.stdout.flush()


def _administered(
    server: LHTTPService, options: Options, reactor: Any, renewal: Renewal
) -> tuple[IService, Callable[[Iterable[AdminKey]], None] | None]:
    """Return *server* with its part of the admin side, and a function that replaces the keys; ``None`` without one."""
    from lhttp_tx.twistd.tap import AdministeredService, make_admin

    if options.admin is None:
        return server, None
    post = Post.of(os.environ)
    siblings = Siblings(post.number, post.count, post.group)
    if post.number == 1:
        # The admin side's socket is the last one. The server may take its own sockets later.
        adopting = AdoptingReactor(reactor, FIRST_DESCRIPTOR + len((*options.config.listen, *options.config.tcp)))
        certificates = Certificates(adopting.endpoint)
        admin = make_admin(options.admin, server, reactor, siblings=siblings, make_endpoint=certificates.endpoint)
        renewal.add_admin(admin, certificates, options.admin.grpc)
        return AdministeredService(server, admin), admin.set_keys
    # The first worker asks all workers.
    from lhttp_tx.web.admin.watch import Watch

    counters = server.parts.counters
    if counters is not None:
        from lhttp_tx.web.admin.collector import make_registry  # needs an optional package
        from lhttp_tx.web.admin.service import manage
        from lhttp_tx.web.admin.workers import tell

        managed = manage(server.parts, lambda: server.factory.admission.pending)
        tell(managed.control, make_registry(managed, counters), siblings)
    return AdministeredService(server, Watch(server.parts, reactor)), lambda keys: None


def main(arguments: Sequence[str]) -> None:
    """Run a worker until it gets SIGTERM."""
    globalLogBeginner.beginLoggingTo([_log_line], redirectStandardIO=False)

    from lhttp_tx.ports.starting import freeze_when
    from lhttp_tx.twistd.mishaps import end_if_not_started
    from lhttp_tx.twistd.options import Options
    from lhttp_tx.twistd.renewal import renewal_of
    from lhttp_tx.twistd.signals import attend_signals, release_signals
    from lhttp_tx.twistd.tap import installed_reactor, make_server, with_reload

    options = Options()
    try:
        options.parseOptions(list(arguments))
    except usage.UsageError as error:
        raise SystemExit(str(error)) from None

    reactor = installed_reactor()
    hurry: list[Callable[[], bool]] = []
    attend_signals(reactor, hurry=lambda: any(call() for call in hurry), hurried_by=("SIGQUIT",))
    from twisted.internet.stdio import StandardIO

    StandardIO(_Lifeline(reactor), reactor=reactor)
    start_pulse(reactor)
    certificates = Certificates(AdoptingReactor(reactor, FIRST_DESCRIPTOR).endpoint)
    server = make_server(options, reactor, make_endpoint=certificates.endpoint)
    hurry.append(server.departure.hurry)
    end_if_not_started(server.when_started(), reactor)
    freeze_when(server.when_started())
    server.when_started().addCallbacks(lambda _: _tell_started(), lambda _: None)
    renewal = renewal_of(options, server, certificates)
    use_defaults = server.parts.engine.use_defaults
    service, set_keys = _administered(server, options, reactor, renewal)
    service = with_reload(
        service, options, server.set_rules, reactor, set_keys=set_keys, use_defaults=use_defaults, renew=renewal.renew
    )
    service.privilegedStartService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.callWhenRunning(service.startService)
    reactor.callWhenRunning(release_signals)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
