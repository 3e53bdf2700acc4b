"""
The engine: one server's processors, filters, hub and sessions.

Edges open a session for each connection and hand it messages; everything that happens to a message is decided here
once for each different head and kept as a :class:`Plan`. Imports nothing that does I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence as SequenceOf

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lhttp_tx.channels import check_channel
from lhttp_tx.errors import BusUnavailable, RemoteProtocolError
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.hub import Hub
from lhttp_tx.interfaces import IHeaderFilter, IProcessor, ISessionTransport, MaybeAwaitable, MaybeDeferred
from lhttp_tx.limits import DEFAULT_LIMITS, Limits
from lhttp_tx.message import Head, HeaderPairs, Message, parse_head, split_head
from lhttp_tx.processors import Processor, Registry
from lhttp_tx.request import Request
from lhttp_tx.sequence import Step
from lhttp_tx.session import Session

__all__ = ["Engine", "Plan"]

_log = Logger()

_PLAN_COUNT = 2048
"""Different heads whose plans are kept; past it, all are forgotten and made again as they are needed."""

_PLAN_HEAD_SIZE = 512
"""Larger heads are not kept, so that the plans of one server stay in the order of 10 MiB."""


_CUT_AGAIN = 0.1
"""Seconds after which what a cut session began in the meantime, such as its next on_close, is cut too."""


class Plan:
    """
    What is done with messages of one head.

    :ivar head: the parsed head.
    :ivar before: the filters' steps before the processor.
    :ivar rest: the processor's steps and the filters' steps after it.
    :ivar receipt: the token of the receipt that is asked for, or ``None``.
    """

    __slots__ = ("before", "head", "receipt", "rest")

    def __init__(self, head: Head, before: tuple[Step, ...], rest: tuple[Step, ...]) -> None:
        self.head = head
        self.before = before
        self.rest = rest
        self.receipt = head.headers.get("receipt")


class Engine:
    """One server, without its sockets."""

    def __init__(
        self,
        *,
        hub: Hub,
        clock: IReactorTime,
        registry: Registry | None = None,
        filters: SequenceOf[IHeaderFilter] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """
        :param hub: where publications go.
        :param clock: the reactor, for time limits.
        :param registry: the processors.
        :param filters: all header filters, in the order in which they see messages.
        :param limits: the bounds of a message and of a connection.
        """
        self.hub = hub
        self.clock = clock
        self.registry = Registry() if registry is None else registry
        self.filters = tuple(filters)
        self.limits = limits
        self._message_size = limits.message_size
        self.open_steps: tuple[Step, ...] = tuple((f.on_open, f) for f in self.filters if _overrides(f, "on_open"))
        self.close_steps: tuple[Step, ...] = tuple((f.on_close, f) for f in self.filters if _overrides(f, "on_close"))
        self.sessions: set[Session] = set()
        self._plans: dict[bytes, Plan] = {}
        self.registry.watchers.append(self._plans.clear)
        self._idle: list[Deferred[None]] = []

    def open_session(self, transport: ISessionTransport) -> Session:
        """
        Return the session of a new connection, with the filters' ``on_open`` called.

        :param transport: the connection, open by now.
        """
        session = Session(engine=self, transport=transport)
        self.sessions.add(session)
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
            plan = self._plans.get(data[: data.find(b"\r\n\r\n") + 2])
            if plan is not None:
                return plan
        raw = split_head(data, self.limits)
        plan = self._plans.get(raw)
        return self.plan_for(parse_head(raw, self.limits)) if plan is None else plan

    def plan_for(self, head: Head) -> Plan:
        """Return what to do with messages that have *head*; raises what a filter's ``check`` raises."""
        plan = self._plans.get(head.raw)
        if plan is None:
            plan = self._make_plan(head)
            if len(head.raw) <= _PLAN_HEAD_SIZE:
                if len(self._plans) >= _PLAN_COUNT:
                    self._plans.clear()
                self._plans[head.raw] = plan
        return plan

    def _make_plan(self, head: Head) -> Plan:
        names = head.headers.names()
        filters = [found for found in self.filters if found.headers is None or not names.isdisjoint(found.headers)]
        for found in filters:
            found.check(head)
        before = tuple((found.before, found) for found in filters if _overrides(found, "before"))
        after = tuple((found.after, found) for found in filters if _overrides(found, "after"))
        processor = self.registry.get(head.command)
        return Plan(head, before, (*_processor_steps(processor), *after))

    def publish_message(self, message: Message) -> MaybeDeferred:
        """
        Publish *message* to the channels that its ``publish`` header lists, as if a client had sent it.

        :returns: as :meth:`lhttp_tx.hub.Hub.publish`.
        :raises RemoteProtocolError: if it has no such header, or a name in it is malformed.
        :raises BusUnavailable: if the bus does not take it.
        """
        channels = message.head.channels("publish")
        if not channels:
            raise RemoteProtocolError("message has no publish header")
        publication = message.stripped()
        return self.hub.publish(channels, publication.raw, publication.binary)

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

            - succeeds when the bus has taken it;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it has not.
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


def _overrides(found: IHeaderFilter, name: str) -> bool:
    """Return whether a filter does anything in its method *name*."""
    kind = type(found)
    return not issubclass(kind, HeaderFilter) or getattr(kind, name) is not getattr(HeaderFilter, name)
