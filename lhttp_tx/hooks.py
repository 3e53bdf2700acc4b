"""
Hooks: what an application can do at the turns of a connection's life.

Users subclass :class:`Hooks` and override what they need. A method that is not overridden costs nothing: which ones
are is found out once, when the server is made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.channels import PRESENCE
from lhttp_tx.codes import TOO_SLOW
from lhttp_tx.errors import LHTTPError, LocalProtocolError
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.frames import build_frame
from lhttp_tx.hub import SendFrame
from lhttp_tx.interfaces import IHeaderFilter, IHooks, MaybeAwaitable
from lhttp_tx.message import split_messages
from lhttp_tx.roster import Entry, Roster
from lhttp_tx.sequence import as_deferred
from lhttp_tx.watchers import SessionWatcher

if TYPE_CHECKING:
    from lhttp_tx.engine import Engine
    from lhttp_tx.message import Message
    from lhttp_tx.request import Request
    from lhttp_tx.session import Session

__all__ = ["HookRunner", "Hooks"]

_log = Logger()

_MAX_IN_FLIGHT = 10_000
"""Calls of hooks that nothing waits for, and that may be under way at one time; more are not made."""


@implementer(IPlugin, IHooks)
class Hooks:
    """
    Hooks that do nothing yet: subclass it and override what you need.

    One object serves every connection; what belongs to a connection is kept in ``session.state``. Each method may
    return ``None``, a Deferred or a coroutine. An instance in a module of ``twisted.plugins`` is found as a plugin.
    """

    timeout: float | None = None
    """Seconds that one call may take before it is cancelled; ``None``: the server's own limit."""

    def on_connect(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_connect`."""
        return None

    def on_disconnect(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_disconnect`."""
        return None

    def on_message(self, request: Request) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_message`."""
        return None

    def before_subscribe(self, session: Session, channel: str) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.before_subscribe`."""
        return None

    def on_subscribe(self, session: Session, channel: str) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_subscribe`."""
        return None

    def on_unsubscribe(self, session: Session, channel: str) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_unsubscribe`."""
        return None

    def before_delivery(self, session: Session, message: Message) -> Any:
        """See :meth:`lhttp_tx.interfaces.IHooks.before_delivery`."""
        return None

    def on_wait_timeout(self, session: Session, message: Message) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_wait_timeout`."""
        return None

    def on_undelivered(self, session: Session, messages: list[Message]) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_undelivered`."""
        return None

    def on_channel_opened(self, channel: str, scope: str) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_channel_opened`."""
        return None

    def on_channel_closed(self, channel: str, scope: str) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_channel_closed`."""
        return None


def _overriding(hooks: Iterable[IHooks], name: str) -> tuple[IHooks, ...]:
    """Return those that do something in their method *name*."""
    return tuple(
        found
        for found in hooks
        if not isinstance(found, Hooks) or getattr(type(found), name) is not getattr(Hooks, name)
    )


# Those that a connection waits for


class _Connecting(HeaderFilter):
    headers = ()

    def __init__(self, hooks: IHooks) -> None:
        self.timeout = hooks.timeout
        self._hooks = hooks

    def on_open(self, session: Session) -> MaybeAwaitable:
        return self._hooks.on_connect(session)


class _Disconnecting(HeaderFilter):
    headers = ()

    def __init__(self, hooks: IHooks) -> None:
        self.timeout = hooks.timeout
        self._hooks = hooks

    def on_close(self, session: Session) -> MaybeAwaitable:
        return self._hooks.on_disconnect(session)


class _Receiving(HeaderFilter):
    def __init__(self, hooks: IHooks, private_commands: frozenset[str]) -> None:
        self.timeout = hooks.timeout
        self._hooks = hooks
        self._private_commands = private_commands

    def before(self, request: Request) -> MaybeAwaitable:
        if request.command in self._private_commands:
            return None
        return self._hooks.on_message(request)


class _Subscribing(HeaderFilter):
    headers = ("subscribe",)

    def __init__(self, hooks: IHooks) -> None:
        self.timeout = hooks.timeout
        self._hooks = hooks

    def before(self, request: Request) -> MaybeAwaitable:
        channels = request.message.head.channels("subscribe")
        return ask_each(self._hooks, request.session, [name.removeprefix(PRESENCE) for name in channels])


def ask_each(hooks: IHooks, session: Session, channels: list[str]) -> MaybeAwaitable:
    """Call ``before_subscribe`` for each of *channels*, one after another, at once where it does not wait."""
    for number, channel in enumerate(channels):
        result = hooks.before_subscribe(session, channel)
        if result is not None:
            return _ask_rest(hooks, session, as_deferred(result, hooks), channels[number + 1 :])
    return None


@inlineCallbacks
def _ask_rest(hooks: IHooks, session: Session, first: Deferred[Any], channels: list[str]) -> Any:
    yield first
    for channel in channels:
        result = hooks.before_subscribe(session, channel)
        if result is not None:
            yield as_deferred(result, hooks)


# Those that nobody waits for


class _Watcher(SessionWatcher):
    def __init__(self, runner: HookRunner) -> None:
        self._runner = runner

    def subscribed(self, session: Session, channel: str) -> None:
        if not channel.startswith(PRESENCE):
            for hooks in self._runner.subscribing:
                self._runner.call(hooks, hooks.on_subscribe, session, channel)

    def unsubscribed(self, session: Session, channel: str) -> None:
        if not channel.startswith(PRESENCE):
            for hooks in self._runner.unsubscribing:
                self._runner.call(hooks, hooks.on_unsubscribe, session, channel)


class _Delivery:
    """
    The way of publications to one session, past ``before_delivery``.

    A message whose answer is waited for holds up those behind it.
    """

    __slots__ = ("_runner", "_send_frame", "_session", "_size", "_waiting")

    def __init__(self, runner: HookRunner, session: Session, send_frame: SendFrame) -> None:
        self._runner = runner
        self._session = session
        self._send_frame = send_frame
        self._waiting: deque[Message] | None = None
        self._size = 0

    def send_frame(self, frames: bytes) -> None:
        """Take frames from the hub."""
        for message in self._runner._parsed(frames):
            if self._waiting is None:
                self._ask(message)
            elif not self._session.closed:
                self._waiting.append(message)
                self._size += len(message.raw)
                if self._size > self._runner.engine.limits.unsent_size:
                    _log.error("{peer}: closed, before_delivery does not keep up", peer=self._session.peer)
                    self._waiting.clear()
                    self._session.close(TOO_SLOW, "too slow: messages that wait to be allowed pass the limit")

    def _ask(self, message: Message) -> None:
        asking = self._runner._ask_delivery(self._session, message)
        if isinstance(asking, bool):
            if asking:
                self._send(message)
            return
        self._waiting = deque()
        asking.addCallback(self._answered, message)
        asking.addErrback(lambda failure: _log.failure("a delivery failed", failure))

    def _answered(self, allowed: bool, message: Message) -> None:
        if allowed:
            self._send(message)
        waiting, self._waiting, self._size = self._waiting or deque(), None, 0
        while waiting and not self._session.closed:
            self._ask(waiting.popleft())
            if self._waiting is not None:
                self._waiting.extend(waiting)
                self._size = sum(len(each.raw) for each in waiting)
                return

    def _send(self, message: Message) -> None:
        self._send_frame(build_frame(message.raw, message.binary))


class HookRunner:
    """
    Calls the hooks of one server.

    :ivar engine: the server without its sockets, once :meth:`attach` has been called.
    :ivar filters: the header filters that call those hooks for which a connection waits.
    :ivar subscribing: those with an ``on_subscribe``.
    :ivar unsubscribing: those with an ``on_unsubscribe``.
    """

    engine: Engine

    def __init__(self, hooks: Iterable[IHooks], *, clock: IReactorTime, private_commands: Iterable[str] = ()) -> None:
        """
        :param hooks: called in this order.
        :param clock: the reactor, for time limits.
        :param private_commands: commands whose messages hold secrets; ``on_message`` does not see them.
        """
        known = tuple(hooks)
        self._hooks = known
        self._clock = clock
        self._in_flight = 0
        private = frozenset(private_commands)
        self.filters: tuple[IHeaderFilter, ...] = (
            *(_Connecting(found) for found in _overriding(known, "on_connect")),
            *(_Disconnecting(found) for found in _overriding(known, "on_disconnect")),
            *(_Receiving(found, private) for found in _overriding(known, "on_message")),
            *(_Subscribing(found) for found in _overriding(known, "before_subscribe")),
        )
        self.subscribing = _overriding(known, "on_subscribe")
        self.unsubscribing = _overriding(known, "on_unsubscribe")
        self._asked_to_subscribe = _overriding(known, "before_subscribe")
        self._delivering = _overriding(known, "before_delivery")
        self._opened = _overriding(known, "on_channel_opened")
        self._closed = _overriding(known, "on_channel_closed")
        self._frames = b""
        self._messages: list[Message] = []

    @property
    def watches_channels(self) -> bool:
        """Whether any of them wants to know which channels have subscribers."""
        return bool(self._opened or self._closed)

    def attach(self, engine: Engine) -> None:
        """Let *engine* call them; its filters have to be given to it."""
        self.engine = engine
        if self.subscribing or self.unsubscribing:
            engine.watchers.append(_Watcher(self))
        if self._delivering:
            engine.delivery = self._delivery
        for name, calls in (("on_wait_timeout", engine.on_wait_timeout), ("on_undelivered", engine.on_undelivered)):
            for found in _overriding(self._hooks, name):
                cast(list[Any], calls).append(self._caller(found, getattr(found, name)))
        if self.watches_channels:
            engine.hub.on_channel.append(lambda channel, opened: self._channel_changed(channel, opened, "node"))

    def watch_channels(self, roster: Roster) -> None:
        """
        Tell when a channel gets its first and loses its last subscriber in the cluster.

        :param roster: has an entry for each node, in the channels that have subscribers there.
        """

        def joined(entry: Entry, channel: str) -> None:
            if len(roster.of_channel(channel)) == 1:
                self._channel_changed(channel, True, "cluster")

        def left(entry: Entry, channel: str) -> None:
            if not roster.of_channel(channel):
                self._channel_changed(channel, False, "cluster")

        roster.on_join.append(joined)
        roster.on_leave.append(left)

    def may_subscribe(self, session: Session, channel: str) -> MaybeAwaitable:
        """Ask all of them; raises, or fails with, what one of them raises."""
        for number, hooks in enumerate(self._asked_to_subscribe):
            result = ask_each(hooks, session, [channel])
            if result is not None:
                return self._may_subscribe_later(as_deferred(result, hooks), number + 1, session, channel)
        return None

    @inlineCallbacks
    def _may_subscribe_later(self, first: Deferred[Any], number: int, session: Session, channel: str) -> Any:
        yield first
        for hooks in self._asked_to_subscribe[number:]:
            result = ask_each(hooks, session, [channel])
            if result is not None:
                yield as_deferred(result, hooks)

    def _channel_changed(self, channel: str, opened: bool, scope: str) -> None:
        if channel.startswith(PRESENCE):
            return
        for hooks in self._opened if opened else self._closed:
            self.call(hooks, hooks.on_channel_opened if opened else hooks.on_channel_closed, channel, scope)

    # Deliveries

    def _delivery(self, session: Session, channel: str, send_frame: SendFrame) -> SendFrame:
        if channel.startswith(PRESENCE):
            return send_frame
        delivery = session.state.get(_Delivery)
        if delivery is None:
            delivery = session.state[_Delivery] = _Delivery(self, session, send_frame)
        found: SendFrame = delivery.send_frame
        return found

    def _parsed(self, frames: bytes) -> list[Message]:
        """Return the messages in *frames*; looked at once for all who get them."""
        if frames is not self._frames:
            self._messages = split_messages(frames)
            self._frames = frames
        return self._messages

    def _ask_delivery(self, session: Session, message: Message, first: int = 0) -> bool | Deferred[bool]:
        """Return whether *session* may get *message*, as the hooks from *first* on say; one that fails says no."""
        for number, hooks in enumerate(self._delivering[first:], first):
            try:
                result = hooks.before_delivery(session, message)
                if result is not None and not isinstance(result, bool):
                    asking = self._limited(as_deferred(result, hooks), hooks)
                    return asking.addCallbacks(
                        self._ask_next,
                        self._not_allowed,
                        callbackArgs=(number + 1, session, message),
                    )
            except Exception:
                self._not_allowed(Failure())
                return False
            if result is False:
                return False
        return True

    def _ask_next(self, answer: object, number: int, session: Session, message: Message) -> Any:
        return answer is not False and self._ask_delivery(session, message, number)

    def _not_allowed(self, failure: Failure) -> bool:
        if not isinstance(failure.value, LHTTPError) or isinstance(failure.value, LocalProtocolError):
            _log.failure("before_delivery failed; the message was not delivered", failure)
        return False

    # Calls

    def _caller(self, hooks: IHooks, method: Callable[..., Any]) -> Callable[..., None]:
        return lambda *arguments: self.call(hooks, method, *arguments)

    def call(self, hooks: IHooks, method: Callable[..., Any], *arguments: Any) -> None:
        """Call a hook for which nobody waits; what goes wrong is logged."""
        if self._in_flight >= _MAX_IN_FLIGHT:
            _log.error("{name} was not called: {count} hooks are under way", name=method.__name__, count=_MAX_IN_FLIGHT)
            return
        try:
            result = method(*arguments)
            if result is None:
                return
            waiting = self._limited(as_deferred(result, hooks), hooks)
        except Exception:
            _log.failure("{name} failed", name=method.__name__)
            return
        self._in_flight += 1
        waiting.addErrback(lambda failure: _log.failure("{name} failed", failure, name=method.__name__))
        waiting.addBoth(self._done)

    def _done(self, _: object) -> None:
        self._in_flight -= 1

    def _limited(self, waiting: Deferred[Any], hooks: IHooks) -> Deferred[Any]:
        limit = self.engine.limits.processor_timeout if hooks.timeout is None else hooks.timeout
        return waiting if waiting.called else waiting.addTimeout(limit, self._clock)
