"""
One connection to one NATS server, from its beginning to its end.

The only module of the server that knows nats-py and asyncio; it needs Twisted's asyncio reactor. A link is never
mended: where it is lost, or where nats-py has closed itself because the server said ``-ERR``,
:mod:`lhttp_tx.bus.keeper` lets go of it and opens another. So there is one way to connect, and nothing is buffered for
a server that is away.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from nats.aio.client import Client
from nats.errors import Error as NATSError
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from lhttp_tx.bus.servers import NATSServers, shown_server
from lhttp_tx.errors import BusUnavailable, MessageTooLarge
from lhttp_tx.frames import is_text

__all__ = ["UNCONFIRMED", "Link", "LinkOwner", "open_link"]

_log = Logger()

_CONNECT_TIMEOUT = 2.0
"""Seconds for each step of connecting: TCP, TLS, the server's greeting, its answer to ours."""

_ANSWER_TIMEOUT = 4.0
"""Seconds in which a server must answer a ping, whatever it was sent before."""

_COMPLAINT_INTERVAL = 10.0
"""Seconds between lines in the log about what NATS forbids."""

_NO_ANSWER = f"no answer for {_ANSWER_TIMEOUT:g} s"

_FAREWELL_TIMEOUT = 1.0
"""Seconds for which a server that stops waits for NATS to take what was sent last."""

_BINARY = {"Lhttp-Frame": "binary"}
"""The header of a publication that travels as a binary WebSocket message; others have none."""

_BINARY_HEAD = b"NATS/1.0\r\nLhttp-Frame: binary\r\n\r\n"
"""The same as NATS has it on the wire."""

_HEADER_SIZE = 64
"""More bytes than this header takes; the server counts them as part of the payload, nats-py does not."""

_MAX_UNCONFIRMED = 50_000
"""How many may wait at one time to hear that the server has what was published."""

UNCONFIRMED = "the bus has not confirmed the publication: it is not known whether it arrived"
"""What is told to those who wait for that in vain."""

_DENIED = re.compile(r'permissions violation for (subscription to|publish to) "([^"]*)"', re.IGNORECASE)


class LinkOwner(Protocol):
    """What a link tells about itself. Nothing here may raise."""

    def begin_batch(self) -> None:
        """Publications arrive; :meth:`end_batch` follows when those of this turn of the reactor are handed over."""

    def receive(self, link: Link, subject: str, payload: bytes, binary: bool, wildcard: str | None = None) -> None:
        """Take a publication to *subject*; *wildcard* is the subject of the wildcard subscription that brought it."""

    def end_batch(self) -> None:
        """No more publications for now."""

    def link_lost(self, link: Link, reason: str) -> None:
        """The link is of no use any more. Called once, unless :meth:`Link.close` was called before."""

    def link_leaving(self, link: Link) -> None:
        """The server is going to close its connections soon (lame-duck mode)."""


class Link:
    """
    A connected NATS client. Made by :func:`open_link`.

    :ivar url: the server's URL.
    """

    def __init__(self, client: Client, url: str, servers: NATSServers, owner: LinkOwner) -> None:
        self.url = url
        self._client = client
        self._servers = servers
        self._owner = owner
        self._lost = False
        self._in_batch = False
        self._subscriptions: dict[str, Any] = {}
        self._orders: list[tuple[str, bool, Deferred[None] | None]] = []
        self._denied: set[str] = set()
        self._worker: asyncio.Task[None] | None = None
        self._unconfirmed: deque[Deferred[None]] = deque()
        self._asked = self._answered = 0  # how many confirmations, since the beginning
        self._confirmer: asyncio.Task[None] | None = None
        self._complaints: dict[str, tuple[float, int]] = {}  # when there may be one again, and how many were left out

    @property
    def usable(self) -> bool:
        """Whether the server takes publications, as far as is known at this moment."""
        return not self._lost and self._client.is_connected

    @property
    def other_urls(self) -> list[str]:
        """URLs of other servers of the cluster, as far as the server has told."""
        user = self.url.rpartition("@")[0].rpartition("//")[2]
        scheme = self.url.partition("://")[0]
        return [
            f"{scheme}://{user}{'@' if user else ''}{found.netloc.rpartition('@')[2]}"
            for found in self._client.discovered_servers
        ]

    # Publishing

    def publish(self, subject: str, payload: bytes, binary: bool) -> None:
        """
        Hand *payload* to the server's socket, at the end of this turn of the reactor at the latest.

        :raises BusUnavailable: if the link is lost, or too much waits to be sent.
        :raises MessageTooLarge: if the server would close the connection for its size.
        """
        client = self._client
        if self._lost or not client.is_connected:
            self.lose("connection closed")
            raise BusUnavailable("the bus is away, try again later")
        if client.pending_data_size > self._servers.pending_size:
            raise BusUnavailable("the bus is congested, try again later")
        self.check_size(payload, binary)
        _run_now(client.publish(subject, payload, headers=_BINARY if binary else None))

    def check_size(self, payload: bytes, binary: bool) -> None:
        """:raises MessageTooLarge: if the server would close the connection for the size of *payload*."""
        size, limit = len(payload) + (_HEADER_SIZE if binary else 0), self._client.max_payload
        if size > limit:
            raise MessageTooLarge(f"publication of {size} bytes is larger than the bus takes: {limit}")

    def publish_more(self, subject: str, payloads: list[bytes], binary: bool) -> None:
        """
        Send *payloads* with what :meth:`publish` has just taken, in one piece.

        nats-py takes longer for each of them than all else that the server does for it.

        :param payloads: in bounds, see :meth:`check_size`.
        """
        name = subject.encode()
        if binary:
            head, size = _BINARY_HEAD, len(_BINARY_HEAD)
            commands = [b"HPUB %s %d %d\r\n%s%s\r\n" % (name, size, size + len(each), head, each) for each in payloads]
        else:
            commands = [b"PUB %s %d\r\n%s\r\n" % (name, len(each), each) for each in payloads]
        data = b"".join(commands)
        client: Any = self._client
        client._pending.append(data)
        client._pending_data_size += len(data)

    def confirm(self) -> Deferred[None]:
        """
        Find out when the server has everything that was published before.

        One question is under way at a time, and the next one asks for all who came meanwhile.

        :returns: a Deferred that

            - succeeds when the server has it;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if the link is lost before, if the server refuses a
              publication meanwhile, or if too many wait already.
        """
        waiter: Deferred[None] = Deferred()
        if self._lost or len(self._unconfirmed) >= _MAX_UNCONFIRMED:
            waiter.errback(BusUnavailable(UNCONFIRMED))
            return waiter
        self._unconfirmed.append(waiter)
        self._asked += 1
        if self._confirmer is None:
            self._confirmer = asyncio.ensure_future(self._confirm())
        return waiter

    async def _confirm(self) -> None:
        try:
            while self._unconfirmed and not self._lost:
                await self.check()
        except Exception:
            self.lose(_NO_ANSWER)
        finally:
            self._confirmer = None

    def _tell(self, asked: int, confirmed: bool) -> None:
        """Tell those who wait, up to the one who was the *asked*-th to ask."""
        while self._answered < asked:
            self._answered += 1
            waiter = self._unconfirmed.popleft()
            if waiter.called:
                continue
            if confirmed:
                waiter.callback(None)
            else:
                waiter.errback(BusUnavailable(UNCONFIRMED))

    # Subscribing

    def subscribe(self, subject: str) -> Deferred[None]:
        """
        Receive what is published to *subject*.

        :returns: a Deferred that

            - succeeds when the server has the subscription;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it does not take it, or the link is lost.
        """
        done: Deferred[None] = Deferred()
        self._order(subject, True, done)
        return done

    def unsubscribe(self, subject: str) -> None:
        """Receive nothing more of *subject*."""
        self._order(subject, False, None)

    def _order(self, subject: str, wanted: bool, done: Deferred[None] | None) -> None:
        self._orders.append((subject, wanted, done))
        if self._worker is None and not self._lost:
            self._worker = asyncio.ensure_future(self._work())
        elif self._lost:
            self._fail_orders()

    async def _work(self) -> None:
        """Carry out orders in their sequence; those that came together are confirmed by one round trip."""
        try:
            while self._orders:
                orders, self._orders = self._orders, []
                try:
                    await self._carry_out(orders)
                    await self.check()
                except Exception as error:
                    self._orders = orders + self._orders
                    self.lose(f"subscribing failed: {error!r}")
                    self._fail_orders()  # where the link was lost before, these were not among the orders that failed
                    return
                for subject, _, done in orders:
                    if done is not None and subject in self._denied:
                        done.errback(BusUnavailable("the bus does not allow this channel"))
                    elif done is not None:
                        done.callback(None)
        finally:
            self._worker = None

    async def _carry_out(self, orders: list[tuple[str, bool, Deferred[None] | None]]) -> None:
        for subject, wanted, _ in orders:
            if wanted and subject not in self._subscriptions:
                self._denied.discard(subject)
                self._subscriptions[subject] = await self._client.subscribe(subject, cb=self._receiver_of(subject))
            elif not wanted:
                self._denied.discard(subject)
                subscription = self._subscriptions.pop(subject, None)
                if subscription is not None:
                    await subscription.unsubscribe()

    def _fail_orders(self) -> None:
        orders, self._orders = self._orders, []
        for _, _, done in orders:
            if done is not None:
                done.errback(BusUnavailable("the bus is away, try again later"))

    def _receiver_of(self, subject: str) -> Callable[[Any], Awaitable[None]]:
        """Return what is called with messages that a subscription brings."""
        if not subject.endswith(">") and "*" not in subject:
            return self._received

        async def received(message: Any) -> None:
            await self._received(message, subject)

        return received

    async def _received(self, message: Any, wildcard: str | None = None) -> None:
        if self._lost:
            return
        if not self._in_batch:
            self._in_batch = True
            self._owner.begin_batch()
            asyncio.get_running_loop().call_soon(self._batch_received)
        payload, headers = message.data, message.headers
        binary = (headers is not None and headers.get("Lhttp-Frame") == "binary") or not is_text(payload)
        self._owner.receive(self, message.subject, payload, binary, wildcard)

    def _batch_received(self) -> None:
        self._in_batch = False
        self._owner.end_batch()

    # Life and death

    async def check(self) -> None:
        """
        Ask the server for a sign of life, behind everything that was sent before; with it, all of that is confirmed.

        :raises Exception: if there is none in time.
        """
        asked = self._asked
        async with asyncio.timeout(_ANSWER_TIMEOUT):
            await self._ping()
        self._tell(asked, True)

    async def _ping(self) -> None:
        client: Any = self._client
        if client.pending_data_size:  # nats-py's ping would go ahead of what it has gathered to write
            written = asyncio.get_running_loop().create_future()
            await client._flush_queue.put(written)
            await written
        await client.flush(timeout=86_400)

    def checked(self) -> Deferred[None]:
        """Return :meth:`check` as a Deferred; where it fails, the link is lost."""

        async def check() -> None:
            try:
                await self.check()
            except Exception:
                self.lose(_NO_ANSWER)

        return _deferred(check())

    def lose(self, reason: str) -> None:
        """Give the link up, and tell its owner if that is news."""
        if not self._lost:
            self._lost = True
            self._abandon()
            self._fail_orders()
            self._tell(self._asked, False)
            self._owner.link_lost(self, reason)

    def close(self, *, flush: bool) -> Deferred[None]:
        """
        Disconnect.

        :param flush: whether to wait until the server has taken what was sent before.
        """

        async def close() -> None:
            try:
                if flush and self.usable:
                    await asyncio.wait_for(self.check(), _FAREWELL_TIMEOUT)
            except Exception as error:
                _log.warn("leaving NATS without its farewell: {error!r}", error=error)
            if not self._lost:
                self._lost = True
                self._abandon()
                self._fail_orders()
                self._tell(self._asked, False)

        return _deferred(close())

    def _abandon(self) -> None:
        """
        End the client's tasks and close its socket, now.

        nats-py's own ``close`` waits for a server that does not read until the kernel gives up.
        """
        client: Any = self._client
        tasks = [client._reading_task, client._ping_interval_task, client._flusher_task, client._reconnection_task]
        tasks.append(self._confirmer)
        tasks += [subscription._wait_for_msgs_task for subscription in client._subs.values()]
        for task in tasks:
            if task is not None:
                task.cancel()
        self._subscriptions.clear()
        client._pending = []  # it may be much, and the client lives until the collector of cycles comes by
        writer = getattr(client._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        if self._in_batch:
            self._batch_received()

    def _connecting_ended(self, connecting: asyncio.Task[None]) -> None:
        if not connecting.cancelled():
            connecting.exception()  # asyncio complains of errors that nobody looks at
        self._abandon()

    # What the client tells

    async def _on_error(self, error: Exception) -> None:
        denied = _DENIED.search(str(error))
        if denied:
            self._complain(denied[1], denied[2])
            if denied[1].lower() == "publish to":
                self._tell(self._asked, False)  # whose it was is not known, but it is one of theirs
            else:
                self._denied.add(denied[2])
        elif not self._client.is_connected or isinstance(error, OSError | EOFError):
            self.lose(str(error) or repr(error))
        else:
            _log.warn("NATS: {error!r}", error=error)

    def _complain(self, verb: str, subject: str) -> None:
        """Log what NATS forbids: clients choose what is published, so there may be any number of such lines."""
        now = asyncio.get_running_loop().time()
        begin, count = self._complaints.get(verb, (now, 0))
        if now < begin:
            self._complaints[verb] = (begin, count + 1)
            return
        others = f" ({count} more lines were left out)" if count else ""
        _log.error("NATS does not let this node {verb} {subject!r}{others}", verb=verb, subject=subject, others=others)
        self._complaints[verb] = (now + _COMPLAINT_INTERVAL, 0)

    async def _on_end(self) -> None:
        error = self._client.last_error
        self.lose(str(error) if error else "connection closed")

    async def _on_lame_duck(self) -> None:
        if not self._lost:
            self._owner.link_leaving(self)


def open_link(url: str, servers: NATSServers, owner: LinkOwner) -> Deferred[Link]:
    """
    Connect to the server at *url*.

    :param url: where to connect.
    :param servers: how to log in, and the bounds.
    :param owner: is told what happens.
    :returns: a Deferred that

        - succeeds with the link;
        - fails with :exc:`lhttp_tx.errors.BusUnavailable`, whose reason says why, after some seconds at the latest.
    """
    return _deferred(_open(url, servers, owner))


async def _open(url: str, servers: NATSServers, owner: LinkOwner) -> Link:
    client = Client()
    link = Link(client, url, servers, owner)
    failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def on_error(error: Exception) -> None:
        if not connecting.done():
            if not failed.done():
                failed.set_result(error)
        else:
            await link._on_error(error)

    options: dict[str, Any] = {}
    if servers.tls_ca or servers.tls_certificate or url.startswith("tls:"):
        options["tls"] = await asyncio.get_running_loop().run_in_executor(None, _tls_context, servers)
    connecting = asyncio.ensure_future(
        client.connect(
            [url],
            name="lhttp_tx",
            error_cb=on_error,
            closed_cb=link._on_end,
            lame_duck_mode_cb=link._on_lame_duck,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=_CONNECT_TIMEOUT,  # type: ignore[arg-type]
            no_echo=True,
            pending_size=0,
            user=servers.user,
            password=servers.password,
            token=servers.token,
            user_credentials=servers.credentials_file,
            **options,
        )
    )
    try:
        await asyncio.wait((connecting, failed), timeout=4 * _CONNECT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
            return link
        error = failed.result() if failed.done() else connecting.exception() if connecting.done() else None
        raise BusUnavailable(f"{shown_server(url)}: {_why(error)}")
    except BaseException:
        link._lost = True
        connecting.cancel()
        connecting.add_done_callback(link._connecting_ended)  # it may have passed over the cancellation
        link._abandon()
        raise


def _why(error: BaseException | None) -> str:
    if error is None or isinstance(error, TimeoutError):
        return "no answer"
    return str(error) or repr(error)


def _tls_context(servers: NATSServers) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=servers.tls_ca)
    if servers.tls_certificate:
        context.load_cert_chain(servers.tls_certificate, servers.tls_key)
    return context


def _run_now(coroutine: Coroutine[Any, Any, None]) -> None:
    """
    Run a coroutine of nats-py that has nothing to wait for.

    :raises BusUnavailable: if it would wait, or fails.
    """
    try:
        coroutine.send(None)
    except StopIteration:
        return
    except (NATSError, OSError) as error:
        raise BusUnavailable(f"the bus did not take it: {error or type(error).__name__}") from None
    coroutine.close()
    raise BusUnavailable("the bus is congested, try again later")


def _deferred(coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    return Deferred.fromFuture(asyncio.ensure_future(coroutine))
