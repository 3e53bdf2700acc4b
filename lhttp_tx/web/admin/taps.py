"""
Lets traces listen to sessions and to the hub.

While a trace listens, a session or the hub gets another class, and afterwards its own class again. So messages cost no
additional call while there is no trace. Used by :mod:`lhttp_tx.web.admin.traces`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from lhttp_tx.codec.message import Message
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.hub import Hub
from lhttp_tx.engine.state import State
from lhttp_tx.interfaces import MaybeDeferred

if TYPE_CHECKING:
    from lhttp_tx.history.values import Filing

__all__ = ["Ear", "Taps"]


class Ear(Protocol):
    """Listens. No method may raise."""

    def received(self, session: Conversation, data: bytes) -> None:
        """Called with a message from a client, before it is handled."""

    def sent(self, session: Conversation, data: bytes) -> None:
        """Called with a message from the server to one client."""

    def published(self, channels: tuple[str, ...], data: bytes) -> None:
        """Called with a publication, on the node that publishes it."""

    def delivering(self, channel: str, payloads: list[bytes], members: Any) -> None:
        """Called with publications on their way to *members*, the subscribers of *channel* on this node."""


class Taps:
    """Lets an :class:`Ear` listen."""

    def __init__(self, hub: Hub, ear: Ear) -> None:
        """
        :param hub: the hub of the server.
        :param ear: gets the messages.
        """
        self._hub = hub
        self._ear = ear
        self._hub_class: type[Hub] | None = None
        self._classes: dict[type[Conversation], type[Conversation]] = {}
        self._tapped: dict[Conversation, type[Conversation]] = {}

    def listen(self, sessions: Iterable[Conversation], *, to_hub: bool) -> None:
        """Listen to these sessions from now on, and to no others; and to the hub, or not."""
        wanted = set(sessions)
        for session in [found for found in self._tapped if found not in wanted]:
            self.drop(session)
        for session in wanted:
            self.add(session)
        if to_hub and self._hub_class is None:
            self._hub_class = type(self._hub)
            self._hub.__class__ = _tapped_hub(self._hub_class, self._ear)
        elif not to_hub and self._hub_class is not None:
            self._hub.__class__, self._hub_class = self._hub_class, None

    def add(self, session: Conversation) -> None:
        """Listen to one more session."""
        if session not in self._tapped:
            own = self._tapped[session] = type(session)
            if own not in self._classes:
                self._classes[own] = _tapped_conversation(own, self._ear)
            session.__class__ = self._classes[own]

    def drop(self, session: Conversation) -> None:
        """Stop listening to one session."""
        own = self._tapped.pop(session, None)
        if own is not None:
            session.__class__ = own


def _tapped_conversation(own: type[Conversation], ear: Ear) -> type[Conversation]:
    """Return a class of sessions that tell *ear* of their messages. A session may change its class at any time."""

    class TappedConversation(own):  # type: ignore[misc, valid-type]
        __slots__ = ()

        def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
            if self.stage is not State.IDLE:  # in these states it calls receive itself
                return own.receive_run(self, messages, first, binary)
            ear.received(self, messages[first])
            return first + own.receive_run(self, [messages[first]], 0, binary)

        def receive(self, data: bytes, binary: bool) -> None:
            ear.received(self, data)
            own.receive(self, data, binary)

        def send(self, message: Message) -> None:
            if isinstance(message, Message) and not self.closed:
                ear.sent(self, message.raw)
            own.send(self, message)

        def _send_answers(self, payloads: list[bytes], binary: bool) -> None:
            for payload in payloads:
                ear.sent(self, payload)
            own._send_answers(self, payloads, binary)

    return TappedConversation


def _tapped_hub(own: type[Hub], ear: Ear) -> type[Hub]:
    """Return a class of hubs that tell *ear* of publications and deliveries."""

    class TappedHub(own):  # type: ignore[misc, valid-type]
        def publish(
            self, channels: Iterable[str], payload: bytes, binary: bool, filing: Filing | None = None
        ) -> MaybeDeferred:
            names = tuple(channels)
            ear.published(names, payload)
            return own.publish(self, names, payload, binary, filing)

        def publish_run(self, channels: tuple[str, ...], payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
            if len(channels) > 1:  # it calls publish for each channel itself
                return own.publish_run(self, channels, payloads, binary)
            return own.publish_run(self, channels, _heard(ear, channels, payloads), binary)

        def flush(self) -> None:
            if self.run:
                found = self._channels.get(self._run_channel)
                if found is not None:
                    ear.delivering(found.name, self.run, found.members)
            own.flush(self)

    return TappedHub


def _heard(ear: Ear, channels: tuple[str, ...], payloads: Iterator[bytes]) -> Iterator[bytes]:
    """Yield payloads, and pass each one to *ear* when it is taken. The others stay in *payloads*."""
    for payload in payloads:
        ear.published(channels, payload)
        yield payload
