"""
Reactors for asyncio loops, for :mod:`lhttp_tx.client.aio`: one for each loop. They are never installed.

The loop runs everything. The reactor only gives Twisted's code access to the loop's timers and sockets. So it is not
started, handles no signals, and has no threads: the loop resolves names.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["LoopReactor", "lend", "take_back"]

_lent: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopReactor] = WeakKeyDictionary()


class LoopReactor(AsyncioSelectorReactor):
    """
    A reactor on a loop that the program runs.

    :ivar users: the number of clients that use it.
    """

    users = 0

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """:param loop: the running loop."""
        super().__init__(loop)
        self.installNameResolver(_Resolver(loop))

    def close(self) -> None:
        """
        Close the reactor's sockets and the pipe that wakes it, and cancel its timers. First do what is due, such as the
        end of connections that were aborted. Use the reactor no more.
        """
        self.runUntilCurrent()
        self._internalReaders.clear()
        for found in self.removeAll():
            found.connectionLost(Failure(ConnectionDone()))
        self.waker = None
        self.runUntilCurrent()
        for call in self.getDelayedCalls():
            call.cancel()
        if self._timerHandle is not None:
            self._timerHandle.cancel()


def lend(loop: asyncio.AbstractEventLoop) -> LoopReactor:
    """Return the reactor of *loop*, which must be running. Call :func:`take_back` once for each call."""
    reactor = _lent.get(loop)
    if reactor is None:
        reactor = _lent[loop] = LoopReactor(loop)
    reactor.users += 1
    return reactor


def take_back(reactor: LoopReactor, loop: asyncio.AbstractEventLoop) -> None:
    """Undo one call of :func:`lend`. The last call closes the reactor."""
    reactor.users -= 1
    if reactor.users == 0:
        _lent.pop(loop, None)
        reactor.close()


@implementer(IHostResolution)
class _Resolution:
    """A name that is being resolved."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """Stop resolving."""
        if self.task is not None:
            self.task.cancel()


@implementer(IHostnameResolver)
class _Resolver:
    """Resolves names with the loop, instead of Twisted's threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See ``IHostnameResolver`` of Twisted."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        resolution.task = self._loop.create_task(self._resolve(resolutionReceiver, hostName, portNumber))
        return resolution

    async def _resolve(self, receiver: Any, name: str, port: int) -> None:
        try:
            found = await self._loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            for family, _, _, _, address in found:
                place: Any = address
                if family == socket.AF_INET:
                    receiver.addressResolved(IPv4Address("TCP", *place))
                elif family == socket.AF_INET6:
                    receiver.addressResolved(IPv6Address("TCP", *place))
        except OSError:
            pass  # there is no such name, so no address
        finally:
            receiver.resolutionComplete()
