"""
Hooks: what an application can do when a connection opens, subscribes, ends and so on.

Users subclass :class:`Hooks` and override what they need. A method that is not overridden costs nothing, because the
server checks once, when it is made, which methods are overridden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.codec.channels import PRESENCE
from lhttp_tx.engine.attributes import check_instance
from lhttp_tx.engine.awaiting import as_deferred
from lhttp_tx.engine.barrier import Barrier
from lhttp_tx.engine.delivery import Deliver
from lhttp_tx.engine.idle import idle, overrides
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.errors import LHTTPError, LocalProtocolError
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.interfaces import IHeaderFilter, IHooks, MaybeAwaitable
from lhttp_tx.observe.rationing import RationedLogger

if TYPE_CHECKING:
    from lhttp_tx.codec.message import Message
    from lhttp_tx.engine.engine import Engine
    from lhttp_tx.engine.request import Request
    from lhttp_tx.engine.session import Session
    from lhttp_tx.running import RunningServer

__all__ = ["Hooks"]

_log = RationedLogger(__name__)

_MAX_IN_FLIGHT = 10_000
"""The most calls of hooks without a waiting connection that may run at one time. Further calls are not made."""


@implementer(IPlugin, IHooks)
class Hooks:
    """
    Hooks that do nothing yet: subclass it and override what you need.

    One object serves every connection. Keep what belongs to one connection in ``session.state``. Each method may return
    ``None``, a Deferred or a coroutine. The server finds an instance in a module of ``twisted.plugins`` as a plugin.
    """

    timeout: float | None = None
    """Seconds after which the server cancels a call; ``None``: the server's own limit."""

    trusted: bool = False
    """Whether :meth:`on_message` may write channels into a message that its client may not use."""

    @idle
    def on_start(self, server: RunningServer) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_start`."""
        return None

    @idle
    def on_stop(self, server: RunningServer) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_stop`."""
        return None

    @idle
    def on_connect(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_connect`."""
        return None

    @idle
    def on_disconnect(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_disconnect`."""
        return None

    @idle
    def on_message(self, request: Request) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_message`."""
        return None

    @idle
    def before_subscribe(self, session: Session, channel: str) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.before_subscribe`."""
        return None

    @idle
    def on_subscribe(self, session: Session, channel: str) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_subscribe`."""
        return None

    @idle
    def on_unsubscribe(self, session: Session, channel: str) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_unsubscribe`."""
        return None

    @idle
    def before_delivery(self, session: Session, message: Message) -> Any:
        """See :meth:`lhttp_tx.interfaces.IHooks.before_delivery`."""
        return None

    @idle
    def on_wait_timeout(self, session: Session, message: Message) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_wait_timeout`."""
        return None

    @idle
    def on_undelivered(self, session: Session, messages: list[Message]) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_undelivered`."""
        return None

    @idle
    def on_channel_opened(self, channel: str, scope: str) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_channel_opened`."""
        return None

    @idle
    def on_channel_closed(self, channel: str, scope: str) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHooks.on_channel_closed`."""
        return None


def _overriding(hooks: Iterable[IHooks], name: str) -> tuple[IHooks, ...]:
    """Return the hooks that override the method *name*."""
    return tuple(found for found in hooks if overrides(found, name))


# Hooks that a connection waits for


class _Connecting(HeaderFilter):
    headers = ()

    def __init__(self, hooks: IHooks) -> None:
        self.timeout = hooks.timeout
        self._hooks = hooks

    def on_connect(self, session: Session) -> MaybeAwaitable:
        return self._hooks.on_connect(session)


class _Disconnecting(HeaderFilter):
    headers = ()

    def __init__(self, hooks: IHooks) -> None:
        self.timeout = hooks.timeout
        self._hooks = hooks

    def on_disconnect(self, session: Session) -> MaybeAwaitable:
        return self._hooks.on_disconnect(session)


class _Receiving(HeaderFilter):
    def __init__(self, hooks: IHooks, private_commands: frozenset[str]) -> None:
        self.timeout = hooks.timeout
        self.trusted = getattr(hooks, "trusted", False)
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

    def judge(self, request: Request) -> MaybeAwaitable:
        channels = request.state[self] = request.judged("subscribe")
        return ask_each(self._hooks, request.session, [name.removeprefix(PRESENCE) for name in channels])

    def after(self, request: Request) -> MaybeAwaitable:
        return None if request.judged("subscribe") == request.state.get(self) else self.judge(request)


def ask_each(hooks: IHooks, session: Session, channels: list[str]) -> MaybeAwaitable:
    """
    Call ``before_subscribe`` for each of *channels*, one after another. A call that does not wait takes effect at once.
    """
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


# Hooks that nobody waits for


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


class _BarrierWatcher(SessionWatcher):
    """Forgets the barriers of sessions that have ended."""

    def __init__(self, barriers: dict[Session, Barrier]) -> None:
        self._barriers = barriers

    def session_closed(self, session: Session) -> None:
        self._barriers.pop(session, None)


class HookRunner:
    """
    Calls the hooks of one server.

    :ivar engine: the server without its sockets; set by :meth:`attach`.
    :ivar filters: the header filters that call the hooks that a connection waits for.
    :ivar subscribing: the hooks with an ``on_subscribe``.
    :ivar unsubscribing: the hooks with an ``on_unsubscribe``.
    """

    engine: Engine

    def __init__(self, hooks: Iterable[IHooks], *, clock: IReactorTime, private_commands: Iterable[str] = ()) -> None:
        """
        :param hooks: called in this order.
        :param clock: the reactor, for time limits.
        :param private_commands: commands whose messages contain secrets. ``on_message`` does not get them.
        :raises ValueError: if an object in *hooks* does not provide :class:`~lhttp_tx.interfaces.IHooks`.
        """
        known = tuple(hooks)
        for found in known:
            check_instance(found, IHooks)
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
        self._barriers: dict[Session, Barrier] = {}

    @property
    def watches_channels(self) -> bool:
        """Whether any hook handles the first and last subscribers of channels."""
        return bool(self._opened or self._closed)

    def attach(self, engine: Engine) -> None:
        """Let *engine* call the hooks. The caller has to give :attr:`filters` to the engine itself."""
        self.engine = engine
        if self.subscribing or self.unsubscribing:
            engine.watchers.append(_Watcher(self))
        if self._delivering:
            engine.delivery = self._delivery
            engine.watchers.append(_BarrierWatcher(self._barriers))
        for name, calls in (("on_wait_timeout", engine.on_wait_timeout), ("on_undelivered", engine.on_undelivered)):
            for found in _overriding(self._hooks, name):
                cast(list[Any], calls).append(self._caller(found, getattr(found, name)))
        if self.watches_channels:
            engine.hub.on_channel.append(lambda channel, opened: self.channel_changed(channel, opened, "node"))

    def may_subscribe(self, session: Session, channel: str) -> MaybeAwaitable:
        """Ask all hooks. If a hook raises, this raises the same error, or the Deferred fails with it."""
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

    def channel_changed(self, channel: str, opened: bool, scope: str) -> None:
        """
        Call the hooks because *channel* has got its first subscriber, or lost its last one.

        :param opened: whether it has got its first subscriber.
        :param scope: ``node`` or ``cluster``.
        """
        if channel.startswith(PRESENCE):
            return
        for hooks in self._opened if opened else self._closed:
            self.call(hooks, hooks.on_channel_opened if opened else hooks.on_channel_closed, channel, scope)

    # Deliveries

    def _delivery(self, session: Session, channel: str, deliver: Deliver) -> Deliver:
        if channel.startswith(PRESENCE):
            return deliver
        barrier = self._barriers.get(session)
        if barrier is None:
            barrier = self._barriers[session] = Barrier(
                self._ask_delivery, session, deliver, self.engine.limits.unsent_size
            )
        found: Deliver = barrier.deliver
        return found

    def _ask_delivery(self, session: Session, message: Message, first: int = 0) -> bool | Deferred[bool]:
        """Ask the hooks from *first* on whether *session* may get *message*. A hook that fails says no."""
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
        """Call a hook that nobody waits for, and log its errors."""
        if self._in_flight >= _MAX_IN_FLIGHT:
            _log.error("{name} was not called: {count} hooks are running", name=method.__name__, count=_MAX_IN_FLIGHT)
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
