"""
The client as an ``IService``: the start and the end of its connection.

A part of :class:`lhttp_tx.client.client.Client`; knows neither messages nor subscriptions.
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
    """A service that keeps the connection of an uplink. The subclass makes the uplink."""

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
        """The user of the connection, as the server has told; ``None`` without a connection, or without *login*."""
        account = self._uplink.account
        return None if account is None else account.user

    @property
    def expires(self) -> float | None:
        """When the server closes the connection unless the login is renewed, in seconds since 1970; or ``None``."""
        account = self._uplink.account
        return None if account is None else account.expires

    def connect(self, attempts: int | None = 1, timeout: float | None = None) -> Deferred[None]:
        """
        Start the client, unless it runs, and wait until it is connected. If it is closing, it finishes that first.

        :param attempts: how many attempts may fail; ``None``: any number.
        :param timeout: seconds to wait; ``None``: no limit except that of the attempts.
        :returns: a Deferred that

            - succeeds when the connection is up and the subscriptions are confirmed;
            - fails with :exc:`~lhttp_tx.client.errors.ConnectFailed`, or with its subclass
              :exc:`~lhttp_tx.client.errors.LoginFailed` if the server refuses the credentials. The client is then
              closed;
            - fails with :exc:`~lhttp_tx.client.errors.ClientClosed` if the client was closed.
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
        Wait until the client is connected. Unlike :meth:`connect`, this starts and closes nothing.

        :returns: a Deferred like that of :meth:`connect`.
        """
        return self._uplink.when_connected(attempts, timeout)

    def startService(self) -> None:
        """Begin to connect. If a connection is still closing, begin after its end. Part of ``IService``."""
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
        Close the client for good. Pending calls fail with :exc:`~lhttp_tx.client.errors.ClientClosed`; iterators end.

        :returns: a Deferred that succeeds when the connection has ended. Messages sent before may still be on their
            way. Wait for receipts to be sure that they have arrived.
        """
        return self.stopService()
