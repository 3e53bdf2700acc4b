"""
The engine: the processors, filters, hub and sessions of one server.

Transports open a session for each connection, and pass messages to it. For each different head, the engine decides once
what to do with such messages, and keeps the decision as a :class:`~lhttp_tx.engine.plans.Plan`. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence as SequenceOf
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lhttp_tx.codec.cache import Generations
from lhttp_tx.codec.channels import own_channels
from lhttp_tx.codec.defaults import NO_DEFAULTS, DefaultHeaders
from lhttp_tx.codec.headers import HeaderPairs
from lhttp_tx.codec.limits import DEFAULT_LIMITS, UNLIMITED, Limits
from lhttp_tx.codec.message import Head, Message, parse_head, split_head
from lhttp_tx.codec.multipart import check_parts
from lhttp_tx.engine.asking import LONGEST_TOKEN, Tokens, key_of
from lhttp_tx.engine.attributes import check_instance
from lhttp_tx.engine.awaiting import awaitable
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.delivery import Deliver
from lhttp_tx.engine.handshake import Handshake
from lhttp_tx.engine.hub import Hub
from lhttp_tx.engine.idle import overrides
from lhttp_tx.engine.plans import KIND_NAMES, Kind, Plan
from lhttp_tx.engine.processors import Registry
from lhttp_tx.engine.receipts import outcome_of
from lhttp_tx.engine.sequence import Step
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.errors import LocalProtocolError, Refused, RemoteProtocolError
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import IHeaderFilter, ITransport, MaybeDeferred

if TYPE_CHECKING:
    from lhttp_tx.history.values import Filing
    from lhttp_tx.observe.counters import Counters
    from lhttp_tx.running import RunningServer

__all__ = ["Engine"]

_log = Logger()

_PLAN_SIZE = 16_777_216
"""
The most bytes of a server's plans, as :attr:`Plan.cost` counts them. Beyond that, the engine drops the oldest ones.
"""

_PLAN_HEAD_SIZE = 512
"""Bytes of the largest head whose plan the engine keeps. For larger heads, making the plan again costs little."""

_KIND_COUNT = 256
"""The most kinds of messages (see :class:`Kind`) that the engine keeps. Beyond that, it drops all of them."""

_CUT_AGAIN = 0.1
"""
Seconds after which the engine cuts a session again: it may have begun something else, such as the next on_disconnect.
"""


class Engine:
    """
    One server, without its sockets.

    :ivar server: the server as users' code sees it; set by :class:`~lhttp_tx.assembly.Assembly`.
    :ivar sessions: the sessions of all open connections.
    :ivar open_steps: the filters' steps when a connection opens.
    :ivar watchers: objects that the engine tells about its sessions.
    :ivar delivery: called with a session, a channel and the function that takes its deliveries; returns the function to
        use instead. Or ``None``.
    :ivar counters: counts what happens; ``None`` if nothing is counted.
    :ivar conversation: the class of the sessions.
    :ivar defaults: the default headers; see :meth:`use_defaults`.
    :ivar watch_expiry: called with a session when the expiry of its identity has changed; ``None`` without logins.
    :ivar step_watchers: functions that wrap a step of a processor or filter, to watch it. The second argument is the
        step itself, however it is wrapped.
    :ivar receipt_note: returns a header line, with its line break, for receipts that waited for the bus; or ``b""``.
    :ivar wait_timeout: the most seconds that a message may wait in the queue of its session; 0: no limit.
    :ivar on_wait_timeout: functions that are called with a session and a message that has waited longer.
    :ivar on_undelivered: functions that are called with a session that has ended and the messages that it did not send.
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
        defaults: DefaultHeaders = NO_DEFAULTS,
    ) -> None:
        """
        :param hub: takes publications.
        :param clock: the reactor, for time limits.
        :param registry: the processors.
        :param filters: all header filters, in the order in which they see messages.
        :param limits: the limits of a message and of a connection.
        :param private_commands: commands whose messages contain secrets. The engine neither publishes these messages
            nor keeps their heads.
        :param defaults: the default headers.
        :raises ValueError: if an object in *filters* is not a filter.
        """
        self.hub = hub
        self.clock = clock
        self.registry = Registry() if registry is None else registry
        self.filters = tuple(filters)
        for found in self.filters:
            check_instance(found, IHeaderFilter)
        self.limits = limits
        self._plan_head_size = min(_PLAN_HEAD_SIZE, limits.head_size)
        self._private_commands = frozenset(private_commands)
        self.open_steps: tuple[Step, ...] = tuple(
            (found.on_connect, found) for found in self.filters if overrides(found, "on_connect")
        )
        self.close_steps: tuple[Step, ...] = tuple(
            (found.on_disconnect, found) for found in self.filters if overrides(found, "on_disconnect")
        )
        self.server: RunningServer
        self.sessions: set[Conversation] = set()
        self.watchers: list[SessionWatcher] = []
        self.receipt_note: Callable[[], bytes] = bytes
        self.delivery: Callable[[Session, str, Deliver], Deliver] | None = None
        self.counters: Counters | None = None
        self.conversation: type[Conversation] = Conversation
        self.watch_expiry: Callable[[Session], None] | None = None
        self.step_watchers: list[Callable[[Step, Step], Step]] = []
        self.wait_timeout = 0.0
        self.on_wait_timeout: list[Callable[[Session, Message], None]] = []
        self.on_undelivered: list[Callable[[Session, list[Message]], None]] = []
        self._plans: Generations[bytes, Plan] = Generations(_PLAN_SIZE)
        self._kinds: dict[tuple[str | None, frozenset[str]], Kind] = {}
        self.use_defaults(defaults)
        self.registry.watchers.append(self.forget_plans)
        self._idle: list[Deferred[None]] = []

    def open_session(
        self, transport: ITransport, identity: Identity | None = None, handshake: Handshake | None = None
    ) -> Conversation:
        """
        Return the session of a new connection. The filters' ``on_connect`` has been called, and may still be running.

        :param transport: the open connection.
        :param identity: the client's identity; ``None`` if only its address is known.
        :param handshake: how the client opened the connection; used only if there are :attr:`open_steps`.
        """
        session = self.conversation(engine=self, transport=transport, identity=identity)
        self.sessions.add(session)
        for watcher in self.watchers:
            watcher.session_opened(session)
        session.open(handshake)
        return session

    def forget(self, session: Conversation) -> None:
        """Remove *session* from :attr:`sessions`. The session calls this when it has nothing left to do."""
        self.sessions.discard(session)
        if not self.sessions:
            waiting, self._idle = self._idle, []
            for deferred in waiting:
                deferred.callback(None)

    def plan(self, data: bytes) -> Plan:
        """
        Return the plan for the message *data*. A plan is made once for each head, and kept.

        :raises RemoteProtocolError: if the head is malformed.
        :raises Exception: what a filter's ``check`` raises, to refuse the head.
        """
        if len(data) <= self._message_size:
            # The head of a kept plan has passed every check, so only the message's size is left to check.
            beginning = data[: data.find(b"\r\n\r\n") + 4]
            plan = self._plans.young.get(beginning) or self._plans.get(beginning)
            if plan is not None:
                return plan
            if b"\r\nreceipt:" in beginning and len(beginning) <= self._plan_head_size:
                plan = self._plans.get(key_of(beginning))
                if plan is not None:
                    return plan
        head = parse_head(split_head(data, self.limits), self.limits)
        asks = b"\r\nreceipt:" in head.raw
        return (self._plan_with_tokens(head, len(data)) if asks else None) or self._make_plan(head, len(data))

    def plan_alone(self, data: bytes) -> Plan:
        """Return a plan for the one message *data* that is not shared. Raise what :meth:`plan` raises."""
        return self._make_plan(parse_head(split_head(data, self.limits), self.limits), len(data))

    def _plan_with_tokens(self, head: Head, size: int) -> Plan | None:
        """Return the plan for messages whose heads differ only in token and id; ``None`` if they cannot share one."""
        beginning = head.raw + b"\r\n"
        head, addition = self.defaults.complete(head, self.limits, size)
        names = [name.lower() for name, _ in head.headers]
        has_id = "message-id" in names
        kind = self._kind(head.command, names)
        if (
            kind.asked is None
            or len(head.raw) + 2 * LONGEST_TOKEN > self._plan_head_size
            or head.command in self._private_commands
            or max(names.count("receipt"), names.count("message-id")) != 1
            or (has_id and self.hub.archive is None)
        ):
            return None
        try:
            tokens = Tokens(beginning, b"" if addition is None else addition.lines)
        except ValueError:
            return None
        channels = head.channels("publish", self.limits)
        if bool(tokens.id_at) is not has_id or len(channels) != 1:
            return None
        for check in kind.checks:
            check(head)
        plan = Plan.with_tokens(head, kind, tokens, channels[0], addition)
        if plan.shortcut is None:
            return None
        self._plans.put(tokens.key, plan)
        return plan

    def plan_for(self, head: Head) -> Plan:
        """Return the plan for messages with *head*. If a filter's ``check`` raises, this raises the same exception."""
        if self.defaults.lacking(head):  # a filter has removed one; clients' messages with this head have it
            return self._make_plan(head)
        plan = self._plans.get(head.raw + b"\r\n")
        return self._make_plan(head) if plan is None else plan

    def _make_plan(self, head: Head, size: int | None = None) -> Plan:
        """
        Make a plan.

        :param size: the bytes of a client's message, which gets the default headers; ``None`` if a filter has written
            the head.
        """
        beginning, addition = head.raw + b"\r\n", None
        if size is not None and self.defaults.size:
            head, addition = self.defaults.complete(head, self.limits, size)
        names = [name.lower() for name, _ in head.headers]
        kind = self._kind(head.command, names)
        limits = self.limits
        listed = 0
        for name in kind.lists:  # before any work for each of the channels
            listed += len(head.channels(name, limits))
        for check in kind.checks:
            check(head)
        plan = Plan(head, beginning, kind, listed, addition)
        if head.command in self._private_commands or (size is None and self.defaults.lacking(head)):
            return plan
        # A head that a filter wrote may be larger than the heads that clients may send.
        if len(beginning) - 2 <= self._plan_head_size and len(names) <= limits.header_count:
            self._plans.put(plan.beginning, plan)
        return plan

    def _kind(self, command: str, names: list[str]) -> Kind:
        """Return what messages with this command and these header names, in lower case, have in common."""
        # Unknown names and commands make no difference, and clients could fill the table with them.
        key = command if command in self._commands else None, self._names.intersection(names)
        kind = self._kinds.get(key)
        if kind is None:
            known = key[1]
            filters = [found for found in self.filters if found.headers is None or not known.isdisjoint(found.headers)]
            if len(self._kinds) >= _KIND_COUNT:
                self._kinds.clear()
            kind = self._kinds[key] = Kind(known, filters, self.registry.get(command))
            own = kind.rest
            for watched in self.step_watchers:
                kind.rest = tuple(map(watched, kind.rest, own))
        return kind

    def forget_plans(self) -> None:
        """Drop all plans, because something that they depend on has changed."""
        self._plans.clear()
        self._kinds.clear()
        self._names = KIND_NAMES.union(*(found.headers or () for found in self.filters))
        self._commands = frozenset(found.command for found in self.registry)

    def use_defaults(self, defaults: DefaultHeaders) -> None:
        """Use other default headers for new messages."""
        self.defaults = defaults
        # A larger message may have no room for them, so its size is checked when it gets them.
        self._message_size = self.limits.message_size - defaults.size
        self.forget_plans()

    def publish_message(self, message: Message, filing: Filing | None = None) -> MaybeDeferred:
        """
        Publish *message* to the channels that its ``publish`` header lists, as if a client had sent it.

        :param filing: says how to store the message, and receives the outcomes. By default, it is made from the
            message's headers.
        :returns: ``None`` if the bus has the message, else a Deferred that

            - succeeds when the bus has the message, whichever nodes its subscribers are on;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if the message was not sent, or may not have arrived.
        :raises RemoteProtocolError: if the channels are malformed, too many or missing, or the multipart body is
            malformed.
        :raises Refused: if the message's command is private.
        :raises BusUnavailable: if the bus does not take the message.
        """
        check_parts(message)
        return self._publish_message(message, self.limits, filing)

    def _publish_message(self, message: Message, limits: Limits, filing: Filing | None = None) -> MaybeDeferred:
        if message.command in self._private_commands:
            raise Refused(403, f"messages with the command {message.command} are never published")
        channels = message.head.channels("publish", limits)
        if not channels:
            raise RemoteProtocolError("message has no publish header")
        publication = message.stripped()
        if filing is None and self.hub.archive is not None:
            filing = self.hub.archive.filing(message.head, wanted=self.hub.has_history)
        result = self.hub.publish(channels, publication.raw, publication.binary, filing)

        def confirm() -> MaybeDeferred:
            return self.hub.confirm(filing is not None and filing.is_kept)

        waiting = confirm() if result is None else result.addCallback(lambda _: confirm())
        if waiting is not None:
            waiting.addBoth(outcome_of, filing, channels)
        elif filing is not None:
            filing.check()
        return waiting

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
        Publish a message from code that has no connection. Subscribers get it with a ``publish`` header.

        :param channels: a channel name, or several.
        :param command: the command of the message.
        :param headers: pairs of name and value, or a dict.
        :param body: the body; a str is sent as UTF-8.
        :param binary: whether to send it as a binary WebSocket message.
        :returns: a Deferred that

            - succeeds when the bus has the message; in a cluster, this takes one round trip to NATS;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if the message was not sent, or may not have arrived;
            - fails with any other exception that the bus or the history store raises.
        :raises LocalProtocolError: if the message is malformed, larger than the bus accepts, or has a private command;
            if a channel name is malformed or reserved; if there is no channel.
        """
        names = own_channels(channels)
        pairs = headers.items() if isinstance(headers, dict) else headers
        own = Message(command, [("publish", " ".join(names)), *pairs], body, binary=binary)
        message = self.defaults.complete_message(own, UNLIMITED)
        try:
            result = self._publish_message(message, UNLIMITED)
            return succeed(None) if result is None else awaitable(result)
        except (RemoteProtocolError, Refused) as error:  # the calling code is wrong, not a client
            raise LocalProtocolError(error.reason) from error
        except LocalProtocolError:
            raise
        except Exception:  # of the bus, or of the history store
            return fail()

    def drain(self, timeout: float) -> Deferred[None]:
        """
        Finish the work in progress and close every connection with code 1001.

        :param timeout: seconds after which the engine cancels unfinished work.
        :returns: a Deferred that succeeds when every connection has ended, and processors, filters and hooks have been
            told.
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
