"""
Testing processors and filters without sockets and real time.

>>> from lhttp_tx import Message, processor
>>> from lhttp_tx.testing import Server
>>> @processor("echo")
... def echo(request):
...     request.reply()
>>> client = Server(processors=[echo]).connect()
>>> client.send(Message("echo", body="hello"))
>>> client.take()
[<Message echo Headers([]) 23 bytes text>]

The engine, the hub and the bus are the real ones; only the connection is a fake, and the clock stands still until it
is advanced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.auth.attempt import LoginAttempt, read_parameters
from lhttp_tx.auth.gate import Gate
from lhttp_tx.auth.login import COMMAND, Lobby, LoginFilter, LoginProcessor
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.community import Community
from lhttp_tx.engine import Engine
from lhttp_tx.filters.multipart import MultipartFilter
from lhttp_tx.filters.pubsub import PublishFilter, SubscribeFilter, UnsubscribeFilter
from lhttp_tx.filters.rules import RuleBook, RuledPublishFilter, RuledSubscribeFilter, RuledUnsubscribeFilter
from lhttp_tx.frames import split_frames
from lhttp_tx.hooks import HookRunner
from lhttp_tx.hub import Hub
from lhttp_tx.identity import Identity, new_connection_id
from lhttp_tx.interfaces import IAuthenticator, IBus, IHeaderFilter, IHooks, IProcessor, ISessionTransport
from lhttp_tx.limits import DEFAULT_LIMITS, Limits
from lhttp_tx.message import Message, parse
from lhttp_tx.presence import GRACE
from lhttp_tx.processors import Registry
from lhttp_tx.rules import Rules
from lhttp_tx.session import Session

__all__ = ["Client", "Server", "split_frames"]


class Server:
    """
    A server in memory.

    :ivar engine: the real engine.
    :ivar clock: its clock; ``clock.advance(seconds)`` lets time pass.
    :ivar bus: its bus.
    :ivar presence: who is in the channels whose presence is kept.
    :ivar control: control over its connections and those of the servers that share its bus.
    """

    def __init__(
        self,
        *,
        processors: Iterable[IProcessor] = (),
        filters: Iterable[IHeaderFilter] = (),
        limits: Limits = DEFAULT_LIMITS,
        rules: Rules | None = None,
        bus: IBus | None = None,
        authenticators: Iterable[IAuthenticator] = (),
        allow_anonymous: bool = False,
        login_timeout: float = 0.0,
        hooks: Iterable[IHooks] = (),
        presence: Iterable[str] = (),
        presence_grace: float = GRACE,
        max_per_user: int = 0,
        login_parameter: str | None = None,
        wait_timeout: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        """
        :param processors: the processors under test.
        :param filters: header filters; they run after the server's own, as in the real server.
        :param limits: the bounds of a message and of a connection.
        :param rules: the channel rules.
        :param bus: the bus; two servers with one bus are a cluster.
        :param authenticators: what says who a client is; without one, everybody comes in.
        :param allow_anonymous: whether clients without credentials come in all the same.
        :param login_timeout: seconds in which a client without credentials must send a login message; 0: it does not
            come in.
        :param hooks: the hooks under test.
        :param presence: patterns of channels of which it is known who is there.
        :param presence_grace: seconds that somebody may be gone before it counts as leaving.
        :param max_per_user: connections of one user; 0: no limit.
        :param login_parameter: the query parameter that says what a client is called who has not logged in.
        :param wait_timeout: seconds that a message may wait for those before it; 0: any time.
        :param clock: the clock; two servers with one bus and one clock know of each other's connections.
        """
        self.clock = Clock() if clock is None else clock
        self.bus = MemoryBus() if bus is None else bus
        registry = Registry()
        for processor in processors:
            registry.add(processor)
        self._gate: Gate | None = None
        checks: list[IHeaderFilter] = []
        known = tuple(authenticators)
        if known:
            self._gate = Gate(
                known,
                clock=self.clock,
                allow_anonymous=allow_anonymous,
                login_timeout=login_timeout,
                now=self.clock.seconds,
            )
            login = LoginFilter(self._gate)
            registry.add(LoginProcessor(self._gate, login.watch))
            checks.append(login)
        book = None if rules is None else RuleBook(rules)
        subscribing = SubscribeFilter() if book is None else RuledSubscribeFilter(book)
        publishing = PublishFilter() if book is None else RuledPublishFilter(book, self.clock)
        unsubscribing = UnsubscribeFilter() if book is None else RuledUnsubscribeFilter()
        private = (COMMAND,) if known else ()
        runner = HookRunner(hooks, clock=self.clock, private_commands=private)
        self.engine = Engine(
            hub=Hub(bus=self.bus),
            clock=self.clock,
            registry=registry,
            filters=[
                *checks,
                *runner.filters,
                MultipartFilter(),
                subscribing,
                publishing,
                unsubscribing,
                *filters,
            ],
            limits=limits,
            private_commands=private,
        )
        self.community = Community(
            self.engine,
            self.bus,
            self.clock,
            hooks=runner,
            subscribing=subscribing,
            unsubscribing=unsubscribing,
            book=book,
            presence=presence,
            presence_grace=presence_grace,
            max_per_user=max_per_user,
            login_parameter=login_parameter,
            wait_timeout=wait_timeout,
            now=self.clock.seconds,
        )
        self.presence = self.community.presence
        self.control = self.community.control
        if clock is not None:
            self.community.start()

    def set_rules(self, rules: Rules) -> None:
        """As :meth:`lhttp_tx.service.LHTTPService.set_rules`; what takes more than one turn goes on with the clock."""
        self.community.set_rules(rules)

    def connect(
        self,
        peer: str = "test",
        *,
        user: str | None = None,
        claims: Mapping[str, Any] | None = None,
        target: str = "/",
        headers: Mapping[str, str] | None = None,
    ) -> Client:
        """
        Return a client that has just connected.

        :param peer: its address.
        :param user: who it is; then no authenticator is asked.
        :param claims: what else is known of *user*.
        :param target: path and query of its handshake.
        :param headers: headers of its handshake, with lower-case names.
        :raises Refused: if it may not come in.
        :raises RuntimeError: if an authenticator does not answer at once.
        """
        path, _, query = target.partition("?")
        attempt = LoginAttempt(peer, new_connection_id(), path, read_parameters(query), headers or {})
        if user is not None:
            return Client(self.engine, peer, attempt.identify(user, claims))
        if self._gate is None:
            return Client(self.engine, peer, Identity(None, attempt.connection_id, {}, attempt.parameters, peer))
        outcome: list[Any] = []
        self._gate.admit(attempt).addBoth(outcome.append)
        if not outcome:
            raise RuntimeError("an authenticator does not answer at once: ask it by itself")
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return Client(self.engine, peer, outcome[0], gate=self._gate, attempt=attempt)


@implementer(ISessionTransport)
class Client:
    """
    A client of a :class:`Server`, and its connection at once.

    :ivar peer: its address.
    :ivar session: the server's side of it; while the client has yet to log in, what waits for that.
    :ivar received: the messages that it got and that were not taken yet.
    :ivar close_code: the code with which the server closed the connection, or ``None``.
    :ivar close_reason: the reason that the server gave.
    :ivar reading_paused: whether the server has stopped reading from it; what is sent meanwhile waits.
    """

    def __init__(
        self,
        engine: Engine,
        peer: str,
        identity: Identity | None = None,
        *,
        gate: Gate | None = None,
        attempt: LoginAttempt | None = None,
    ) -> None:
        self.peer = peer
        self.received: list[Message] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self.reading_paused = False
        self.connected = True
        self._unread: list[tuple[bytes, bool]] = []
        self._opened = False
        self.session: Any = None
        if identity is None and gate is not None and attempt is not None:
            self._engine = engine
            self.session = Lobby(gate, attempt, transport=self, limits=engine.limits, enter=self._enter)
        else:
            self.session = engine.open_session(self, identity)
        self._opened = True
        if self.close_code is not None:
            self.disconnect()

    def send(self, message: Message | bytes | str) -> None:
        """
        Send a message to the server.

        :param message: a message, or the payload of a WebSocket message: a str is sent as text, bytes as binary.
        :raises ConnectionError: if the connection has ended.
        """
        if not self.connected or self.close_code is not None:
            raise ConnectionError("the connection has ended")
        if isinstance(message, Message):
            payload, binary = message.raw, message.binary
        elif isinstance(message, str):
            payload, binary = message.encode("utf-8"), False
        else:
            payload, binary = message, True
        self._unread.append((payload, binary))
        self._deliver()

    def take(self) -> list[Message]:
        """Return what was received since the last call."""
        taken, self.received = self.received, []
        return taken

    def disconnect(self) -> None:
        """End the connection, as a peer does that goes away."""
        if self.connected:
            self.connected = False
            self.session.connection_lost()

    def _enter(self, identity: Identity) -> Session:
        session = self.session = self._engine.open_session(self, identity)
        return session

    def _deliver(self) -> None:
        while self._unread and not self.reading_paused:
            self.session.receive(*self._unread.pop(0))

    # ISessionTransport

    def send_frame(self, frame: bytes) -> None:
        """Called by the server."""
        if self.connected and self.close_code is None:
            self.received.extend(parse(payload, binary=binary) for payload, binary in split_frames(frame))

    def pause_reading(self) -> None:
        """Called by the server."""
        self.reading_paused = True

    def resume_reading(self) -> None:
        """Called by the server."""
        self.reading_paused = False
        self._deliver()

    def close(self, code: int, reason: str) -> None:
        """Called by the server; the connection ends at once, as with a client that answers the close."""
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
            if self._opened:
                self.disconnect()
