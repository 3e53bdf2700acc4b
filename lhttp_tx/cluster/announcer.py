r"""
How clients learn who is in a channel: by asking, and by subscribing to the presence of the channel.

::

    LHTTP/1.0 presence\r\nchannel:room\r\n\r\n
    LHTTP/1.0 chat\r\nsubscribe:$presence.room\r\n\r\n

What :class:`lhttp_tx.presence.Presence` knows, as messages. Source: the protocol document, section "Presence".
"""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.internet.defer import Deferred

from lhttp_tx.channels import PRESENCE, check_channel
from lhttp_tx.errors import RemoteProtocolError
from lhttp_tx.filters.pubsub import no_presence
from lhttp_tx.hub import Hub
from lhttp_tx.interfaces import MaybeAwaitable
from lhttp_tx.message import Message
from lhttp_tx.presence import Presence
from lhttp_tx.processors import Processor
from lhttp_tx.request import Request
from lhttp_tx.sequence import as_deferred
from lhttp_tx.session import Session

__all__ = ["COMMAND", "MAX_PEOPLE", "Announcer", "PresenceProcessor"]

COMMAND = "presence"
"""The command of a question who is there, of the answer, and of the messages that tell who comes and goes."""

MAX_PEOPLE = 500
"""People that an answer names; those who have been there longest. It always tells how many there are."""

_JSON = ("content-type", "application/json")


class PresenceProcessor(Processor):
    """Answers who is in the channel that the header ``channel`` names, to whoever may subscribe to it."""

    command = COMMAND

    def __init__(
        self,
        presence: Presence,
        has_presence: Callable[[str], bool],
        check_access: Callable[[Session, str], MaybeAwaitable],
    ) -> None:
        """
        :param presence: knows who is there.
        :param has_presence: returns whether that is known of a channel.
        :param check_access: raises, or fails, if a client may not subscribe to a channel.
        """
        self._presence = presence
        self._has_presence = has_presence
        self._check_access = check_access

    def on_message(self, request: Request) -> MaybeAwaitable:
        """
        :raises RemoteProtocolError: if no channel is named, or its name is malformed.
        :raises Refused: if the client may not know, or nobody does.
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
        count, connections = self._presence.count(channel)
        people = self._presence.people(channel)[:MAX_PEOPLE]
        told = {"channel": channel, "count": count, "connections": connections, "people": people}
        request.reply(_dump(told), command=COMMAND, headers=[("channel", channel), _JSON], binary=False)


class Announcer:
    """Tells the subscribers of this node who comes to a channel and who goes. Each node tells its own."""

    def __init__(self, presence: Presence, hub: Hub) -> None:
        """
        :param presence: knows who is there.
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
        self._hub.receive(name, [Message(COMMAND, headers, _dump(told)).raw], False)


def _dump(told: object) -> str:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
