"""
The objects that users may give a server, as types that every type checker knows.

They repeat the interfaces of :mod:`lhttp_tx.interfaces`, which the server checks at run time. A type checker
understands interfaces only if it has a plugin for zope.interface. Only annotations use this module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred

from lhttp_tx.interfaces import BusReceiver, MaybeAwaitable, MaybeDeferred

if TYPE_CHECKING:
    from lhttp_tx.auth.attempts import LoginAttempt
    from lhttp_tx.codec.message import Head, Message
    from lhttp_tx.engine.request import Request
    from lhttp_tx.engine.session import Session
    from lhttp_tx.history.values import Page, Placing, Retention
    from lhttp_tx.identity import Identity

__all__ = ["AnyAuthenticator", "AnyBus", "AnyFilter", "AnyHistoryStore", "AnyHooks", "AnyProcessor"]


class _Limited(Protocol):
    @property
    def timeout(self) -> float | None: ...


class AnyProcessor(_Limited, Protocol):
    """See :class:`lhttp_tx.interfaces.IProcessor`."""

    @property
    def command(self) -> str:
        """The command whose messages the processor gets."""

    def on_open(self, session: Session, /) -> MaybeAwaitable:
        """See the interface."""

    def on_message(self, request: Request, /) -> MaybeAwaitable:
        """See the interface."""

    def on_close(self, session: Session, /) -> MaybeAwaitable:
        """See the interface."""


class AnyFilter(_Limited, Protocol):
    """See :class:`lhttp_tx.interfaces.IHeaderFilter`."""

    @property
    def headers(self) -> tuple[str, ...] | None:
        """The names of the headers that the filter handles, in lower case; ``None``: all messages."""

    def check(self, head: Head, /) -> None:
        """See the interface."""

    def on_connect(self, session: Session, /) -> MaybeAwaitable:
        """See the interface."""

    def before(self, request: Request, /) -> MaybeAwaitable:
        """See the interface."""

    def judge(self, request: Request, /) -> MaybeAwaitable:
        """See the interface."""

    def after(self, request: Request, /) -> MaybeAwaitable:
        """See the interface."""

    def on_disconnect(self, session: Session, /) -> MaybeAwaitable:
        """See the interface."""


class AnyHooks(_Limited, Protocol):
    """See :class:`lhttp_tx.interfaces.IHooks`."""

    def on_connect(self, session: Session, /) -> MaybeAwaitable:
        """See the interface."""

    def on_disconnect(self, session: Session, /) -> MaybeAwaitable:
        """See the interface."""

    def on_message(self, request: Request, /) -> MaybeAwaitable:
        """See the interface."""

    def before_subscribe(self, session: Session, channel: str, /) -> MaybeAwaitable:
        """See the interface."""

    def before_delivery(self, session: Session, message: Message, /) -> bool | Awaitable[bool | None] | None:
        """See the interface."""


class AnyAuthenticator(_Limited, Protocol):
    """See :class:`lhttp_tx.interfaces.IAuthenticator`."""

    @property
    def challenges(self) -> tuple[str, ...]:
        """Values of ``WWW-Authenticate`` for clients that send no credentials."""

    @property
    def secret_parameters(self) -> frozenset[str]:
        """The names of query parameters that hold secrets."""

    def authenticate(self, attempt: LoginAttempt, /) -> Identity | Awaitable[Identity | None] | None:
        """See the interface."""


class AnyBus(Protocol):
    """See :class:`lhttp_tx.interfaces.IBus`."""

    @property
    def description(self) -> str:
        """One line for the log."""

    @property
    def available(self) -> bool:
        """Whether the bus can pass publications to other nodes now."""

    def bracket(self, begin: Callable[[], None], end: Callable[[], None], /) -> None:
        """See the interface."""

    def start(self) -> Deferred[None]:
        """See the interface."""

    def stop(self) -> Deferred[None]:
        """See the interface."""

    def subscribe(self, channel: str, receiver: BusReceiver, /) -> MaybeDeferred:
        """See the interface."""

    def unsubscribe(self, channel: str, receiver: BusReceiver, /) -> None:
        """See the interface."""

    def publish(self, channel: str, payload: bytes, binary: bool, /) -> MaybeDeferred:
        """See the interface."""

    def publish_run(self, channel: str, payloads: Iterator[bytes], binary: bool, /) -> MaybeDeferred:
        """See the interface."""

    def confirm(self) -> MaybeDeferred:
        """See the interface."""


class AnyHistoryStore(Protocol):
    """See :class:`lhttp_tx.interfaces.IHistoryStore`."""

    @property
    def description(self) -> str:
        """One line for the log."""

    @property
    def available(self) -> bool:
        """Whether the store accepts publications now."""

    @property
    def trouble(self) -> str:
        """Why the store does not accept publications; empty if it does."""

    @property
    def spreads(self) -> bool:
        """Whether the store itself passes each appended publication to all nodes."""

    def start(self) -> Deferred[None]:
        """See the interface."""

    def stop(self) -> Deferred[None]:
        """See the interface."""

    def epoch_of(self, retention: Retention, /) -> str:
        """See the interface."""

    def append(
        self,
        channel: str,
        retention: Retention,
        payloads: list[bytes],
        binary: bool,
        placing: Placing | None = None,
        /,
    ) -> list[bytes]:
        """See the interface."""

    def confirm(self) -> MaybeDeferred:
        """See the interface."""

    def read(
        self, channel: str, retention: Retention, /, *, after: int, limit: int, size: int
    ) -> Page | Deferred[Page]:
        """See the interface."""

    def newest(
        self, channel: str, retention: Retention, /, *, before: int, limit: int, size: int
    ) -> Page | Deferred[Page]:
        """See the interface."""

    def remove(self, channel: str, retention: Retention, /) -> MaybeDeferred:
        """See the interface."""
