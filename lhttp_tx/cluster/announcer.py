r"""
Tells clients who is in a channel. They ask, or subscribe to the presence of the channel.

::

    LHTTP/1.0 presence\r\nchannel:room\r\n\r\n
    LHTTP/1.0 chat\r\nsubscribe:$presence.room\r\n\r\n

Makes messages of the state of :class:`lhttp_tx.cluster.presence.Presence`. Source: the protocol document, section
"Presence".
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from lhttp_tx.cluster.presence import Presence
from lhttp_tx.cluster.room import Room, to_json
from lhttp_tx.codec.channels import PRESENCE, check_channel
from lhttp_tx.codec.message import Message
from lhttp_tx.engine.awaiting import as_deferred
from lhttp_tx.engine.hub import Hub
from lhttp_tx.engine.processors import Processor
from lhttp_tx.engine.request import Request
from lhttp_tx.engine.session import Session
from lhttp_tx.errors import RemoteProtocolError
from lhttp_tx.filters.pubsub import no_presence
from lhttp_tx.interfaces import MaybeAwaitable

__all__ = ["COMMAND", "Announcer", "PresenceProcessor"]

COMMAND = "presence"
"""The command of questions about presence, of the answers, and of the messages about joins and leaves."""

_JSON = ("content-type", "application/json")


class PresenceProcessor(Processor):
    """Answers who is in the channel in the header ``channel``, if the client may subscribe to it."""

    command = COMMAND

    def __init__(
        self,
        presence: Presence,
        has_presence: Callable[[str], bool],
        check_access: Callable[[Session, str], MaybeAwaitable],
        is_complete: Callable[[], bool],
    ) -> None:
        """
        :param presence: knows who is in the channels.
        :param has_presence: returns whether the server keeps the presence of a channel.
        :param check_access: raises an exception, or returns an awaitable that fails, if a client may not subscribe to a
            channel.
        :param is_complete: returns whether this node hears all other nodes.
        """
        self._presence = presence
        self._has_presence = has_presence
        self._check_access = check_access
        self._is_complete = is_complete

    def on_message(self, request: Request) -> MaybeAwaitable:
        """
        :raises RemoteProtocolError: if the message names no channel, or the name is malformed.
        :raises Refused: if the client may not subscribe to the channel, or the server does not keep its presence.
        """
        channel = request.headers.get("channel")
        if channel is None:
            raise RemoteProtocolError("a presence message needs the header channel")
        check_channel(channel)
        waiting = self._check_access(request.session, channel)
        if waiting is None:
            self._answer(None, request, channel)
            return None
        asking: Deferred[object] = as_deferred(waiting, self)
        return asking.addCallback(self._answer, request, channel)

    def _answer(self, _: object, request: Request, channel: str) -> None:
        if not self._has_presence(channel):
            raise no_presence(channel)
        room = self._presence.room(channel)
        self._presence.listed(channel)
        if not self._is_complete():
            request.session.send(_told(channel, room, {"complete": False}))
            return
        if room.answer is None:
            room.answer = _told(channel, room, {})
        request.session.send(room.answer)


def _told(channel: str, room: Room, more: dict[str, object]) -> Message:
    told = to_json({"channel": channel, "count": len(room), "connections": room.connections, **more})
    body = told[:-1].encode("utf-8") + b',"people":' + room.told() + b"}"
    return Message(COMMAND, [("channel", channel), _JSON], body)


class Announcer:
    """Tells subscribers on this node who joins or leaves a channel. Each node does so for its own subscribers."""

    def __init__(self, presence: Presence, hub: Hub) -> None:
        """
        :param presence: knows who is in the channels.
        :param hub: has the subscribers.
        """
        self._presence = presence
        self._hub = hub
        presence.on_event.append(self._tell)

    def _tell(self, event: str, channel: str, user: str | None, connection: str) -> None:
        name = PRESENCE + channel
        if not self._hub.has_subscribers(name):
            return
        count, connections = self._presence.count(channel)
        told = {
            "event": event,
            "channel": channel,
            "user": user,
            "connection": connection,
            "count": count,
            "connections": connections,
        }
        headers = [("publish", name), ("event", event), ("channel", channel), ("user", user or ""), _JSON]
        self._hub.receive(name, [Message(COMMAND, headers, to_json(told)).raw], False)
