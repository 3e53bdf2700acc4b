"""
Decides where a process listens: on its own sockets, or on those of the process that it replaces.

Used by :mod:`lhttp_tx.twistd.tap`. :mod:`lhttp_tx.ports.takeover` hands the sockets over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from lhttp_tx.config import Config
from lhttp_tx.errors import StartFailed
from lhttp_tx.ports.sockets import UNIXRights
from lhttp_tx.ports.takeover import MakeEndpoint, Takeover, TakeoverFailed
from lhttp_tx.twistd.mishaps import end_if_not_started, give_up

__all__ = ["Places", "Prepared"]

_log = Logger()

_PENDING_TIME, _PENDING_INTERVAL = 1.0, 0.02
"""The most seconds for which a replaced process waits for requests of accepted connections; seconds between checks."""

_PATIENCE = 10.0
"""Seconds that a replaced process may take to stop, in addition to its time limits."""


class Prepared(MultiService):
    """
    Services that all open their ports before the first of them starts, also under ``twist``, which starts them at once.

    So the last one can stop a previous process in between: see :meth:`Takeover.privilegedStartService
    <lhttp_tx.ports.takeover.Takeover.privilegedStartService>`.
    """

    def __init__(self, *services: IService) -> None:
        """:param services: the services, in their order."""
        super().__init__()
        self._is_prepared = False
        self._pausing: Deferred[Any] | None = None
        for service in services:
            service.setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Open the ports of all services."""
        self._is_prepared = True
        super().privilegedStartService()

    def startService(self) -> None:
        """Open the ports of all services, unless they are open, and then start the services."""
        if not self._is_prepared:
            self.privilegedStartService()
        super().startService()

    def pause(self) -> Deferred[Any]:
        """
        Stop the first service. The others continue.

        :returns: a Deferred that succeeds when it has stopped. It never does so if the process is already stopping.
        """
        if not self.running:
            return Deferred()
        first, *_ = self
        self._pausing = maybeDeferred(first.stopService).addErrback(
            lambda failure: _log.failure("stopping for the next process failed", failure)
        )
        done: Deferred[Any] = Deferred()
        self._pausing.addCallback(lambda _: done.callback(None))
        return done

    def resume(self) -> None:
        """
        Start the first service again.

        :raises CannotListenError: if it cannot open its ports.
        """
        first, *_ = self
        self._pausing = None
        first.privilegedStartService()
        first.startService()

    def stopService(self) -> Deferred[Any]:
        """Stop all services that run. Return a Deferred that succeeds when all have stopped."""
        if self._pausing is None:
            stopping: Deferred[Any] = super().stopService()
            return stopping
        Service.stopService(self)
        _, *others = self
        return DeferredList([self._pausing, *(maybeDeferred(each.stopService) for each in reversed(others))])


class Places:
    """
    Where a process listens. With ``--upgrade``, it listens on the sockets of the previous process, and replaces it.

    :ivar make: makes endpoints.
    :ivar skip_delay: called when the next process has taken over, before this one stops.
    :ivar count_pending: returns the number of connections that have not sent a request yet.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        *,
        path: str | None,
        shares: bool,
        hurry: Sequence[Callable[[], bool]],
        owners: Collection[int] = (),
    ) -> None:
        """
        :param config: the settings of the server.
        :param reactor: the running reactor.
        :param path: the UNIX socket at which one process takes over from another; ``None`` without ``--upgrade``.
        :param shares: whether two processes can serve together, because they share channels and history.
        :param hurry: functions that end a slow stop at once after it has begun.
        :param owners: the users, besides root and the user of this process, that the running process may run as.
        :raises SystemExit: if the running process does not hand over its sockets.
        """
        self.skip_delay: Callable[[], None] = lambda: None
        self.count_pending: Callable[[], int] = lambda: 0
        rights = UNIXRights(config.unix_mode, config.unix_group)
        self.make: MakeEndpoint = rights.endpoint
        self._reactor = reactor
        self._hurry = hurry
        self._takeover: Takeover | None = None
        if path is None:
            return
        takeover = self._takeover = Takeover(
            path,
            reactor,
            replaced=self._replaced,
            pause=self._pause,
            resume=self._resume,
            patience=0.0 if shares else config.drain_timeout + config.close_timeout + _PATIENCE,
            owners=owners,
            rights=rights,
        )
        try:
            takeover.take()
        except TakeoverFailed as error:
            give_up(f"--upgrade: {error}")
        self.make = takeover.maker(self.make)

    def watched(self, make_endpoint: MakeEndpoint) -> MakeEndpoint:
        """Return a function that makes the same endpoints, so that the next process can take them over."""
        return make_endpoint if self._takeover is None else self._takeover.watcher(make_endpoint)

    def upgrades(self, when_started: Callable[[], Deferred[None]]) -> tuple[Service, ...]:
        """
        Return the services that must run beside the server.

        :param when_started: returns a Deferred that succeeds when the server has started. From then on, the previous
            process is not needed.
        """
        takeover = self._takeover
        if takeover is None:
            return ()
        self._when_started = when_started
        when_started().addCallbacks(lambda _: takeover.started(), lambda _: None)
        return (takeover,)

    def _replaced(self, now: bool) -> None:
        self.skip_delay()
        self._settled().addCallback(lambda _: self._stop(now))

    def _settled(self) -> Deferred[None]:
        """Return a Deferred that succeeds when all accepted connections have sent a request, or the time is over."""
        done: Deferred[None] = Deferred()
        end = self._reactor.seconds() + _PENDING_TIME

        def look() -> None:
            if self.count_pending() and self._reactor.seconds() < end:
                self._reactor.callLater(_PENDING_INTERVAL, look)
            else:
                done.callback(None)

        look()
        return done

    def _stop(self, now: bool) -> None:
        with suppress(ReactorNotRunning):
            self._reactor.stop()
        if now:  # after the services have begun to stop
            self._reactor.addSystemEventTrigger("before", "shutdown", self._hurry_up)

    def _hurry_up(self) -> None:
        any(call() for call in self._hurry)

    # The services, which stop and perhaps start again

    def _pause(self) -> Deferred[Any]:
        def pause(_: None) -> Deferred[Any]:
            paused = self._prepared.pause()
            self._hurry_up()
            return paused

        return self._settled().addCallback(pause)

    def _resume(self) -> None:
        """Start the server again. If it does not start, the process ends with status 1."""
        try:
            self._prepared.resume()
        except Exception as error:  # the log has it
            end_if_not_started(fail(StartFailed(str(error))), self._reactor)
        else:
            end_if_not_started(self._when_started(), self._reactor)

    @property
    def _prepared(self) -> Prepared:
        assert self._takeover is not None
        assert isinstance(self._takeover.parent, Prepared)
        return self._takeover.parent
