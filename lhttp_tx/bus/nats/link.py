"""
One connection to one NATS server, from the beginning to the end.

:mod:`lhttp_tx.bus.nats.opening` makes it. It uses :mod:`lhttp_tx.bus.nats.orders` and
:mod:`lhttp_tx.bus.nats.confirmations`, and needs Twisted's asyncio reactor. A link never reconnects. If it is lost, or
if nats-py has closed it because of an ``-ERR`` of the server, :mod:`lhttp_tx.bus.nats.keeper` drops it and opens
another. So there is only one way to connect, and nothing is buffered for an unreachable server.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from lhttp_tx.bus.nats.confirmations import ANSWER_TIMEOUT, Confirmations
from lhttp_tx.bus.nats.guarded import GuardedClient
from lhttp_tx.bus.nats.headers import BINARY_HEAD, publish_commands
from lhttp_tx.bus.nats.inbox import Inbox
from lhttp_tx.bus.nats.incoming import Run
from lhttp_tx.bus.nats.orders import Orders
from lhttp_tx.bus.nats.origins import Dates
from lhttp_tx.bus.nats.owner import LinkOwner
from lhttp_tx.bus.nats.permission import Complaints, Denials, Permission
from lhttp_tx.bus.nats.receiving import pass_on
from lhttp_tx.bus.nats.servers import NATSServers, is_server
from lhttp_tx.bus.nats.subjects import channel_of, subject_of
from lhttp_tx.bus.nats.tap import Receiver
from lhttp_tx.errors import BusUnavailable, MessageTooLarge

__all__ = ["Link", "in_deferred"]

_log = Logger()

_NO_ANSWER = f"no answer for {ANSWER_TIMEOUT:g} s"

_FAREWELL_TIMEOUT = 1.0
"""The most seconds for which a stopping node waits until NATS has the last publications."""

_HEADER_SIZE = 64
"""An upper bound for the header bytes of a binary publication. The server counts them as part of the payload."""

_STORED_SIZE = 256
"""An upper bound for the header bytes of a publication that goes to a stream, with a message id."""

_DENIED = re.compile(r'permissions violation for (subscription to|publish to) "([^"]*)"', re.IGNORECASE)


class Link:
    """
    A connected NATS client. Made by :func:`lhttp_tx.bus.nats.opening.open_link`.

    :ivar url: the server's URL.
    :ivar server: the id that the server has given itself; empty if it has not.
    :ivar inbox: the callers that wait for answers over this link. Subscribe to its subject before using it.
    """

    def __init__(self, client: GuardedClient, url: str, servers: NATSServers, owner: LinkOwner) -> None:
        self.url = url
        self.server = ""
        self.inbox = Inbox(client)
        self._client = client
        self._servers = servers
        self._owner = owner
        self._lost = False
        self._behind = b""
        self._dates: Dates | None = None
        client.taken, client.broken = self._taken, self.lose
        self._orders = Orders(client, self._receiver_of, self.check, self.lose)
        self._confirmations = Confirmations(client.ping, lambda: self.lose(_NO_ANSWER))
        self._permission = Permission(client, servers.prefix)
        self._complaints = Complaints()
        self._denials = Denials(self._confirmations.wait, subject_of("$", servers.prefix))

    @property
    def usable(self) -> bool:
        """Whether the link is connected, as far as it knows."""
        return not self._lost and self._client.is_connected

    @property
    def denied(self) -> bool:
        """Whether the server does not allow this node to publish or subscribe, according to the last :meth:`probed`."""
        return self._permission.denied

    @property
    def other_urls(self) -> list[str]:
        """The URLs of other servers of the cluster that this server has announced, with the user of :attr:`url`."""
        user = self.url.rpartition("@")[0].rpartition("//")[2]
        scheme = self.url.partition("://")[0]
        found = (server.netloc.rpartition("@")[2] for server in self._client.discovered_servers)
        return [f"{scheme}://{user}{'@' if user else ''}{place}" for place in found if is_server(f"{scheme}://{place}")]

    # Publishing

    def begin(self, mark: bytes) -> None:
        """
        Send *mark* with all publications from now on, because the node begins to use this link; see
        :mod:`lhttp_tx.bus.nats.origins`.
        """
        self._behind = b" " + mark
        self._dates = self._owner.origins.dates(mark)

    def publish(self, subject: str, payload: bytes, binary: bool) -> Deferred[None] | None:
        """
        Write *payload* to the server's socket, at the latest at the end of this turn of the reactor.

        :returns: ``None``; or, if the server has refused a publication lately, a Deferred like that of
            :meth:`lhttp_tx.bus.nats.permission.Denials.attempt`.
        :raises Forbidden: if the server does not allow the subject.
        :raises BusUnavailable: if the link is lost, or too many bytes wait to be sent.
        :raises MessageTooLarge: if the server would close the connection because of the size of *payload*.
        """
        client = self._client
        if self._lost or not client.is_connected:
            self.lose("connection closed")
            raise BusUnavailable("the bus is unavailable, try again later")
        if client.pending_data_size > self._servers.pending_size:
            raise BusUnavailable("the bus is congested, try again later")
        self.check_size(payload, binary)
        if self._dates is not None:
            self._behind = b" " + self._dates.mark()
        is_new = self._denials.alert and self._denials.is_new(subject)
        client.send(publish_commands(subject.encode() + self._behind, BINARY_HEAD if binary else b"", [payload]))
        return self._denials.attempt(subject) if is_new else None

    def check_size(self, payload: bytes, binary: bool, *, stored: bool = False) -> None:
        """
        Check the size of a payload.

        :param stored: whether it goes to a stream, with more headers.
        :raises MessageTooLarge: if *payload* is so large that the server would close the connection.
        """
        size, limit = len(payload) + (_HEADER_SIZE if binary else 0), self._client.max_payload
        if size + (_STORED_SIZE if stored else 0) > limit:
            raise MessageTooLarge(f"publication of {size} bytes is larger than the limit of the bus, {limit}")

    def publish_more(self, subject: str, payloads: list[bytes], binary: bool) -> None:
        """
        Send *payloads* in one write, directly after a call of :meth:`publish` with the same subject.

        :param payloads: payloads that :meth:`check_size` has accepted.
        """
        self._client.send(publish_commands(subject.encode() + self._behind, BINARY_HEAD if binary else b"", payloads))

    def confirm(self) -> Deferred[None]:
        """
        Find out when the server has all earlier publications.

        One ping is in flight at a time. The next one serves all callers that came in the meantime.

        :returns: a Deferred that

            - succeeds when the server has them;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if the link is lost first, or if too many callers already
              wait; with :exc:`lhttp_tx.errors.ChannelsRefused` if the server has refused publications in the meantime.
        """
        return self._confirmations.wait()

    # Subscribing

    def subscribe(self, subject: str) -> Deferred[None]:
        """
        Receive publications to *subject*.

        :returns: a Deferred that

            - succeeds when the server has the subscription;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if the server refuses the subscription, or the link is
              lost.
        """
        done: Deferred[None] = Deferred()
        self._orders.add(subject, True, done)
        return done

    def unsubscribe(self, subject: str) -> None:
        """Stop receiving publications to *subject*."""
        self._orders.add(subject, False, None)

    def _receiver_of(self, subject: str) -> Receiver:
        """Return the function that takes the messages of a subscription."""
        if subject == self.inbox.subject:
            return self.inbox.received
        if not subject.endswith(">") and "*" not in subject:
            return partial(pass_on, self._owner, self)
        return partial(pass_on, self._owner, self, wildcard=subject)

    def _taken(self, runs: list[Run[Receiver]]) -> None:
        """Take the messages of one read."""
        self._owner.begin_batch()
        try:
            for run in runs:
                if not self._lost:
                    run.owner(run)
        finally:
            self._owner.end_batch()

    # Checking and closing

    async def check(self) -> None:
        """
        Ping the server. The answer confirms everything that was sent before the ping.

        :raises Exception: if no answer comes within four seconds.
        """
        asked = self._confirmations.asked
        async with asyncio.timeout(ANSWER_TIMEOUT):
            await self._client.pinged()
        self._confirmations.answer(asked, True)

    def checked(self) -> Deferred[None]:
        """Return :meth:`check` as a Deferred. If it fails, the link is lost."""

        async def check() -> None:
            try:
                await self.check()
            except Exception:
                self.lose(_NO_ANSWER)

        return in_deferred(check())

    def probed(self) -> Deferred[None]:
        """
        Like :meth:`checked`, but also find out whether the server allows this node to publish and subscribe; see
        :attr:`denied`.
        """

        async def probe() -> None:
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT):
                    await self._permission.ask()
                await self.check()
            except Exception:
                self.lose(_NO_ANSWER)
            else:
                self._permission.conclude()

        return in_deferred(probe())

    def lose(self, reason: str) -> None:
        """Abandon the link, and tell the owner. Do nothing if the link is lost already."""
        if not self._lost:
            self.give_up()
            self._owner.link_lost(self, reason)

    def close(self, *, flush: bool) -> Deferred[None]:
        """
        Disconnect.

        :param flush: whether to wait up to a second until the server has everything that was sent.
        """

        async def close() -> None:
            try:
                if flush and self.usable:
                    await asyncio.wait_for(self.check(), _FAREWELL_TIMEOUT)
            except Exception as error:
                _log.warn("disconnecting from NATS before it confirmed all publications: {error!r}", error=error)
            if not self._lost:
                self.give_up()

        return in_deferred(close())

    def give_up(self) -> None:
        """Abandon the link, and fail the waiting Deferreds. The owner is not told."""
        self._lost = True
        self._abandon()
        self._orders.refuse()
        self._confirmations.refuse()
        self.inbox.end()

    def _abandon(self) -> None:
        """
        End the client's tasks and close its socket at once.

        The ``close`` of nats-py would wait for a server that does not read, until the operating system closes the
        socket.
        """
        client: Any = self._client
        tasks = [client._reading_task, client._ping_interval_task, client._flusher_task, client._reconnection_task]
        tasks += [subscription._wait_for_msgs_task for subscription in client._subs.values()]
        for task in tasks:
            if task is not None:
                task.cancel()
        self._denials.end()
        self._confirmations.end()
        self._orders.end()
        client._pending = []  # free these bytes now: the client lives until the next garbage collection
        writer = getattr(client._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def connecting_ended(self, connecting: asyncio.Task[None]) -> None:
        """Close a connection that was made after its attempt was cancelled."""
        if not connecting.cancelled():
            connecting.exception()  # asyncio logs errors that nobody retrieves
        self._abandon()

    # Callbacks of the client

    async def on_error(self, error: Exception) -> None:
        """Handle an error of the client or of the server."""
        denied = _DENIED.search(str(error))
        if denied:
            subject = self._client.spelled(denied[2])
            self._complaints.add(denied[1].lower().replace("subscription", "subscribe"), subject)
            if self._permission.is_about(subject):
                return
            if denied[1].lower() == "publish to":
                if not subject.startswith(self._servers.prefix):
                    self.inbox.denied(subject)
                    return
                if not self._denials.refused(subject):
                    self._refuse(subject)
                self._denials.watch()
            else:
                self._orders.denied.add(subject)
        elif not self._client.is_connected or isinstance(error, OSError | EOFError):
            self.lose(str(error) or repr(error))
        else:
            _log.warn("NATS: {error!r}", error=error)

    def _refuse(self, subject: str) -> None:
        channel = channel_of(subject, self._servers.prefix)
        if channel is None:
            self._confirmations.refuse()
        else:
            self._confirmations.refuse_channel(channel)

    async def on_end(self) -> None:
        """Called when the client has closed itself."""
        error = self._client.last_error
        self.lose(str(error) if error else "connection closed")

    async def on_lame_duck(self) -> None:
        """Called when the server will stop soon (lame-duck mode)."""
        if not self._lost:
            self._owner.link_leaving(self)


def in_deferred(coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """Start a coroutine that uses asyncio. Return a Deferred with its result."""
    return Deferred.fromFuture(asyncio.ensure_future(coroutine))
