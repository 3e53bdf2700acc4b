"""
The client as an ``IService``: the start and the end of its connection.

A part of :class:`lhttp_tx.client.client.Client`, without messages and subscriptions.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.client.http.ways import Transport, Ways
from lhttp_tx.client.states import State
from lhttp_tx.client.uplink import Uplink

__all__ = ["ConnectedService"]


class ConnectedService(Service):
    """A service that starts and stops an uplink. The subclass makes the uplink."""

    _uplink: Uplink
    _ways: Ways

    @property
    def state(self) -> State:
        """The state of the client."""
        return self._uplink.state

    @property
    def transport(self) -> Transport | None:
        """The transport of the connection: ``websocket``, ``stream`` or ``poll``; ``None`` without a connection."""
        return self._ways.transport

    @property
    def user(self) -> str | None:
        """The user of the connection, according to the server; ``None`` without a connection, or without *login*."""
        account = self._uplink.account
        return None if account is None else account.user

    @property
    def expires(self) -> float | None:
        """
        The time at which the server closes the connection unless the login is renewed, in seconds since 1970; ``None``:
        never.
        """
        account = self._uplink.account
        return None if account is None else account.expires

    def connect(self, attempts: int | None = 1, timeout: float | None = None) -> Deferred[None]:
        """
        Start the client if it does not run, and wait until it is connected. If it is still closing, it finishes this
        first.

        :param attempts: the most attempts; ``None``: no limit.
        :param timeout: the most seconds to wait; ``None``: no limit except that of the attempts.
        :returns: a Deferred that

            - succeeds when the client is connected, and the server has confirmed the subscriptions;
            - fails with :exc:`~lhttp_tx.client.errors.ConnectFailed`, or with its subclass
              :exc:`~lhttp_tx.client.errors.LoginFailed` if the server refuses the credentials. The client is then
              closed;
            - fails with :exc:`~lhttp_tx.client.errors.ClientClosed` if the client is closed in the meantime.
        """

        def failed(failure: Failure) -> Deferred[Any]:
            return self.close().addCallback(lambda _: failure)

        if self.state is State.CLOSING:
            return self._uplink.stop().addCallback(lambda _: self.connect(attempts, timeout))
        if self.running:
            return self.when_connected(attempts, timeout).addErrback(failed)
        waiting = self._uplink.wait(attempts, timeout)
        self.startService()
        return waiting.addErrback(failed)

    def when_connected(self, attempts: int | None = None, timeout: float | None = None) -> Deferred[None]:
        """
        Wait until the client is connected. Unlike :meth:`connect`, this neither starts nor closes the client.

        :param attempts: the most attempts from now on; ``None``: no limit.
        :param timeout: the most seconds to wait; ``None``: no limit except that of the attempts.
        :returns: a Deferred like that of :meth:`connect`.
        """
        return self._uplink.when_connected(attempts, timeout)

    def startService(self) -> None:
        """Begin to connect. If a connection is still closing, wait for its end first. Part of ``IService``."""
        if self.running:
            return
        super().startService()
        if self.state is State.CLOSING:
            self._uplink.stop().addCallback(lambda _: self._uplink.start() if self.running else None)
        else:
            self._uplink.start()

    def stopService(self) -> Deferred[None]:
        """Close the connection and stop connecting; part of ``IService``. See :meth:`close`."""
        if self.running:
            super().stopService()
        return self._uplink.stop()

    def close(self) -> Deferred[None]:
        """
        Close the client. Pending calls fail with :exc:`~lhttp_tx.client.errors.ClientClosed`. Iterators end.

        :returns: a Deferred that succeeds when the connection has ended. Earlier messages may not have arrived. To be
            sure that they have, wait for their receipts.
        """
        return self.stopService()
