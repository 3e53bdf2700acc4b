"""
A mailbox: what is published to ``user.NAME`` while nobody is subscribed to it waits there until somebody is.

The server itself stores nothing. One object sees to it: as a header filter it keeps publications that reach nobody, and
as hooks it learns which channels have subscribers, hands over what waits, and takes back what a client that does not
read has not got. Start a server with both::

    twistd -n lhttp --port 8081 --filter examples/mailbox.py:mailbox --hooks examples/mailbox.py:mailbox

Publish to ``user.jack``, then subscribe to it. This one keeps the messages in memory, so it is for one node; with a
database that all nodes share, it works in a cluster, since it is told which channels are open in all of it.
"""

from collections import deque

from lhttp_tx import HeaderFilter, Hooks, Message, Request, Session

MAX_MESSAGES = 100
"""Messages that wait for one user; the oldest are lost first."""

MAX_USERS = 10_000


class Mailbox(HeaderFilter, Hooks):
    """Keeps messages for users who are not there."""

    headers = ("publish",)

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._waiting: dict[str, deque[Message]] = {}

    def after(self, request: Request) -> None:
        """Keep a message that was published, if nobody got it."""
        if request.publication is not None:
            for channel in request.message.head.channels("publish"):
                if channel not in self._open:
                    self._keep(channel, request.publication)

    def on_channel_opened(self, channel: str, scope: str) -> None:
        """Somebody is there."""
        if scope == "cluster":
            self._open.add(channel)

    def on_channel_closed(self, channel: str, scope: str) -> None:
        """Nobody is there any more."""
        if scope == "cluster":
            self._open.discard(channel)

    def on_subscribe(self, session: Session, channel: str) -> None:
        """Hand over what waits."""
        for message in self._waiting.pop(channel, ()):
            session.send(message)

    def on_undelivered(self, session: Session, messages: list[Message]) -> None:
        """Keep what a client has not got that did not read."""
        for message in messages:
            for channel in message.head.channels("publish"):
                self._keep(channel, message)

    def _keep(self, channel: str, message: Message) -> None:
        if channel.startswith("user.") and (channel in self._waiting or len(self._waiting) < MAX_USERS):
            self._waiting.setdefault(channel, deque(maxlen=MAX_MESSAGES)).append(message)


mailbox = Mailbox()
