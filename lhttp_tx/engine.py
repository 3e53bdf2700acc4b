"""
The engine: one server's processors, filters, hub and sessions.

Edges open a session for each connection and hand it messages; everything that happens to a message is decided here
once for each different head and kept as a :class:`Plan`. Imports nothing that does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence as SequenceOf
from typing import cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lhttp_tx.channels import check_channel
from lhttp_tx.errors import BusUnavailable, Refused, RemoteProtocolError
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.generations import Generations
from lhttp_tx.hub import Hub, SendFrame
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import (
    IHeaderFilter,
    IProcessor,
    ISessionTransport,
    IShortcutFilter,
    MaybeAwaitable,
    MaybeDeferred,
    Shortcut,
)
from lhttp_tx.limits import DEFAULT_LIMITS, Limits
from lhttp_tx.message import Head, HeaderPairs, Message, parse_head, split_head
from lhttp_tx.processors import Processor, Registry
from lhttp_tx.request import Request
from lhttp_tx.sequence import Step
from lhttp_tx.session import Session
from lhttp_tx.watchers import SessionWatcher

__all__ = ["Engine", "Plan"]

_log = Logger()

_PLAN_SIZE = 16_777_216
"""Bytes that the plans of one server may take, by their own account; those not used for longest are forgotten."""

_PLAN_HEAD_SIZE = 512
"""Larger heads are not kept: one more look at them costs little beside the rest of such a message."""

_KIND_COUNT = 256
"""Different combinations of command and header names whose steps are kept; past it, all are forgotten."""

_PLAN_COST = 350
_HEADER_COST = 300
"""Bytes that a plan takes, and each header of its head, beside the bytes of the head; measured, and rounded up."""

_CUT_AGAIN = 0.1
"""Seconds after which what a cut session began in the meantime, such as its next on_close, is cut too."""


class _Kind:
    """
    What messages with the same command and the same names of headers have in common.

    :ivar checks: the filters' checks of the head.
    :ivar names: the names, in lower case.
    :ivar before: the filters' steps before the processor.
    :ivar rest: the processor's steps and the filters' steps after it.
    :ivar shortcut: the filter that is all there is to do, and has a way that is shorter than its step; else ``None``.
    :ivar simple: whether such a filter is all there is to do but for the steps before the processor.
    """

    __slots__ = ("before", "checks", "names", "rest", "shortcut", "simple")

    def __init__(self, names: frozenset[str], filters: SequenceOf[IHeaderFilter], processor: IProcessor | None) -> None:
        self.names = names
        self.checks = tuple(found.check for found in filters)
        self.before: tuple[Step, ...] = tuple((found.before, found) for found in filters if _overrides(found, "before"))
        after = [found for found in filters if _overrides(found, "after")]
        self.rest: tuple[Step, ...] = (*_processor_steps(processor), *((found.after, found) for found in after))
        self.shortcut: IShortcutFilter | None = None
        self.simple = len(after) == len(self.rest) == 1 and _has_shortcut(after[0])
        if self.simple and all(owner is after[0] for _, owner in self.before):
            self.shortcut = cast(IShortcutFilter, after[0])


class Plan:
    """
    What is done with messages of one head.

    :ivar beginning: what such messages begin with: the head and the blank line.
    :ivar before: the filters' steps before the processor.
    :ivar cost: about how many bytes of memory it takes.
    :ivar head: the parsed head; ``None`` where there is a shortcut.
    :ivar owner: the filter whose *shortcut* it is.
    :ivar receipt: the token of the receipt that is asked for, or ``None``.
    :ivar rest: the processor's steps and the filters' steps after it.
    :ivar runs_ahead: whether it need not wait until receipts of messages before it are sent: it does nothing but to
        publish, and is answered behind them.
    :ivar shortcut: does all that is to be done, without a request for each message; ``None`` where there is none.
    """

    __slots__ = ("before", "beginning", "cost", "head", "owner", "receipt", "rest", "runs_ahead", "shortcut")

    def __init__(self, head: Head, beginning: bytes, kind: _Kind) -> None:
        self.beginning = beginning
        self.before = kind.before
        self.rest = kind.rest
        self.runs_ahead = kind.simple
        self.receipt = head.headers.get("receipt") if "receipt" in kind.names else None
        self.owner: IShortcutFilter | None = None
        self.shortcut: Shortcut | None = None
        if kind.shortcut is not None and self.receipt is None:
            self.owner = kind.shortcut
            self.shortcut = kind.shortcut.shortcut(head)
        # What is never asked for is not kept: there may be many such plans.
        self.head = head if self.shortcut is None else None
        self.cost = _PLAN_COST + 2 * len(beginning)
        if self.head is not None:
            self.cost += _HEADER_COST * (1 + len(head.headers)) + 2 * len(beginning)


class Engine:
    """
    One server, without its sockets.

    :ivar sessions: those of all connections that are there.
    :ivar watchers: told of sessions and what becomes of them.
    :ivar delivery: returns what takes a session's frames of a channel, in the place of what it is given; or ``None``.
    :ivar wait_timeout: seconds that a message may wait for those before it; 0: any time.
    :ivar on_wait_timeout: called with a session and a message of its client that has waited longer, and is dropped.
    :ivar on_undelivered: called with a session and messages that were not sent to its client when it was given up.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        clock: IReactorTime,
        registry: Registry | None = None,
        filters: SequenceOf[IHeaderFilter] = (),
        limits: Limits = DEFAULT_LIMITS,
        private_commands: Iterable[str] = (),
    ) -> None:
        """
        :param hub: where publications go.
        :param clock: the reactor, for time limits.
        :param registry: the processors.
        :param filters: all header filters, in the order in which they see messages.
        :param limits: the bounds of a message and of a connection.
        :param private_commands: commands whose messages hold secrets: none is published, and no head is kept.
        """
        self.hub = hub
        self.clock = clock
        self.registry = Registry() if registry is None else registry
        self.filters = tuple(filters)
        self.limits = limits
        self._message_size = limits.message_size
        self._private_commands = frozenset(private_commands)
        self.open_steps: tuple[Step, ...] = tuple((f.on_open, f) for f in self.filters if _overrides(f, "on_open"))
        self.close_steps: tuple[Step, ...] = tuple((f.on_close, f) for f in self.filters if _overrides(f, "on_close"))
        self.sessions: set[Session] = set()
        self.watchers: list[SessionWatcher] = []
        self.delivery: Callable[[Session, str, SendFrame], SendFrame] | None = None
        self.wait_timeout = 0.0
        self.on_wait_timeout: list[Callable[[Session, Message], None]] = []
        self.on_undelivered: list[Callable[[Session, list[Message]], None]] = []
        self._plans: Generations[bytes, Plan] = Generations(_PLAN_SIZE)
        self._kinds: dict[tuple[str, ...], _Kind] = {}
        self.registry.watchers.append(self.forget_plans)
        self._idle: list[Deferred[None]] = []

    def open_session(self, transport: ISessionTransport, identity: Identity | None = None) -> Session:
        """
        Return the session of a new connection, with the filters' ``on_open`` called.

        :param transport: the connection, open by now.
        :param identity: who it belongs to; ``None`` for a client of whom nothing is known but its address.
        """
        session = Session(engine=self, transport=transport, identity=identity)
        self.sessions.add(session)
        for watcher in self.watchers:
            watcher.session_opened(session)
        session.open()
        return session

    def forget(self, session: Session) -> None:
        """Called by *session* when nothing is left to be done for it."""
        self.sessions.discard(session)
        if not self.sessions:
            waiting, self._idle = self._idle, []
            for deferred in waiting:
                deferred.callback(None)

    def plan(self, data: bytes) -> Plan:
        """
        Return what to do with the message *data*. Equal heads are looked at once.

        :raises RemoteProtocolError: if its head is malformed, or a filter's ``check`` refuses it.
        """
        if len(data) <= self._message_size:
            # The head of a plan that is kept has passed every check but that of the message's size.
            beginning = data[: data.find(b"\r\n\r\n") + 4]
            plan = self._plans.young.get(beginning) or self._plans.get(beginning)
            if plan is not None:
                return plan
        raw = split_head(data, self.limits)
        return self._make_plan(parse_head(raw, self.limits))

    def plan_for(self, head: Head) -> Plan:
        """Return what to do with messages that have *head*; raises what a filter's ``check`` raises."""
        plan = self._plans.get(head.raw + b"\r\n")
        return self._make_plan(head) if plan is None else plan

    def _make_plan(self, head: Head) -> Plan:
        key = (head.command, *[name.lower() for name, _ in head.headers])
        kind = self._kinds.get(key) or self._make_kind(key)
        for check in kind.checks:
            check(head)
        plan = Plan(head, head.raw + b"\r\n", kind)
        limits = self.limits
        if head.command in self._private_commands:
            return plan
        # A head that a filter put in place of another may be larger than those that clients may send.
        if len(head.raw) <= min(_PLAN_HEAD_SIZE, limits.head_size) and len(head.headers) <= limits.header_count:
            self._plans.put(plan.beginning, plan)
        return plan

    def _make_kind(self, key: tuple[str, ...]) -> _Kind:
        command, *found = key
        names = frozenset(found)
        filters = [found for found in self.filters if found.headers is None or not names.isdisjoint(found.headers)]
        kind = _Kind(names, filters, self.registry.get(command))
        if sum(map(len, key)) <= _PLAN_HEAD_SIZE:
            if len(self._kinds) >= _KIND_COUNT:
                self._kinds.clear()
            self._kinds[key] = kind
        return kind

    def forget_plans(self) -> None:
        """Decide anew what is done with messages: something that plans are made of has changed."""
        self._plans.clear()
        self._kinds.clear()

    def publish_message(self, message: Message) -> MaybeDeferred:
        """
        Publish *message* to the channels that its ``publish`` header lists, as if a client had sent it.

        :returns: ``None`` if the bus has it, else a Deferred that

            - succeeds when the bus has it, on whichever nodes its subscribers are;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it was not sent, or if it is not known whether it
              arrived.
        :raises RemoteProtocolError: if it has no such header, or a name in it is malformed.
        :raises Refused: if its command is a private one.
        :raises BusUnavailable: if the bus does not take it.
        """
        if message.command in self._private_commands:
            raise Refused(403, f"messages with the command {message.command} are never published")
        channels = message.head.channels("publish")
        if not channels:
            raise RemoteProtocolError("message has no publish header")
        publication = message.stripped()
        result = self.hub.publish(channels, publication.raw, publication.binary)
        return self.hub.confirm() if result is None else result.addCallback(lambda _: self.hub.confirm())

    def publish(
        self,
        channels: str | Iterable[str],
        command: str,
        headers: HeaderPairs | dict[str, str] = (),
        body: bytes | str = b"",
        *,
        binary: bool = False,
    ) -> Deferred[None]:
        """
        Publish a message from code that has no connection. Subscribers see it with a ``publish`` header.

        :param channels: a channel name, or several.
        :param command: the command of the message.
        :param headers: pairs of name and value, or a dict of them.
        :param body: the body; a str is sent as UTF-8.
        :param binary: whether it travels as a binary WebSocket message.
        :returns: a Deferred that

            - succeeds when the bus has it: in a cluster, one round trip to NATS later;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it was not sent, or if it is not known whether it
              arrived.
        :raises LocalProtocolError: if the message is not well-formed.
        :raises RemoteProtocolError: if a channel name is malformed or reserved.
        """
        names = [channels] if isinstance(channels, str) else list(channels)
        pairs = headers.items() if isinstance(headers, dict) else headers
        for name in names:
            check_channel(name)
        message = Message(command, [("publish", " ".join(names)), *pairs], body, binary=binary)
        try:
            return self.publish_message(message) or succeed(None)
        except BusUnavailable:
            return fail()

    def drain(self, timeout: float) -> Deferred[None]:
        """
        Finish what is in hand and close every connection with 1001.

        :param timeout: seconds after which what is still in hand is cancelled.
        :returns: a Deferred that succeeds when every connection has ended and every ``on_close`` is done.
        """
        _log.info("closing {count} connections", count=len(self.sessions))
        if not self.sessions:
            return succeed(None)

        def cut() -> None:
            timers[0] = self.clock.callLater(_CUT_AGAIN, cut)
            for session in tuple(self.sessions):
                session.cut()

        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        for session in tuple(self.sessions):
            session.finish(1001, "server is going away")
        timers = [self.clock.callLater(timeout, cut)]

        def done(result: None) -> None:
            if timers[0].active():
                timers[0].cancel()

        return idle.addCallback(done)


def _processor_steps(processor: IProcessor | None) -> tuple[Step, ...]:
    if processor is None:
        return ()

    def open_once(request: Request) -> MaybeAwaitable:
        return request.session.open_processor(processor)

    kind = type(processor)
    if issubclass(kind, Processor) and kind.on_open is Processor.on_open and kind.on_close is Processor.on_close:
        return ((processor.on_message, processor),)
    return ((open_once, processor), (processor.on_message, processor))


def _has_shortcut(found: IHeaderFilter) -> bool:
    """Return whether a filter has a shortcut that does what its steps do, and not what those of a parent did."""
    if IShortcutFilter.providedBy(found):
        for kind in type(found).__mro__:
            if "shortcut" in vars(kind):
                return True
            if "after" in vars(kind) or "before" in vars(kind):
                return False
    return False


def _overrides(found: IHeaderFilter, name: str) -> bool:
    """Return whether a filter does anything in its method *name*."""
    kind = type(found)
    return not issubclass(kind, HeaderFilter) or getattr(kind, name) is not getattr(HeaderFilter, name)
