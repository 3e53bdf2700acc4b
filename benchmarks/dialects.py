"""
What the load generator says to each server, as bytes built beforehand, and how many bytes come back.

Used by :mod:`benchmarks.scenarios`. The body of a publication is the same for all; who puts more around it has more
to send.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from benchmarks.wire import client_frame, frame_size
from lhttp_tx.codec.views import VIEWS

__all__ = [
    "CENTRIFUGO",
    "CENTRIFUGO_PLAIN",
    "LHTTP",
    "NATS",
    "SOCKET_IO",
    "CentrifugoDialect",
    "Dialect",
    "EventsDialect",
    "HistoryDialect",
    "LHTTPDialect",
    "NATSDialect",
    "SocketIODialect",
    "StreamDialect",
    "ViewDialect",
]


class Dialect:
    """
    A protocol on top of WebSocket.

    :cvar path: where the WebSocket is.
    :cvar subprotocol: the subprotocol that is asked for; empty for none.
    :cvar plain: whether there is no WebSocket: the protocol begins with the connection.
    :cvar hello: sent first on each connection; empty if there is nothing to say.
    :cvar welcome: what the answer to it ends with or holds.
    :cvar subscribed: what the answer to :meth:`subscribe` holds.
    :cvar framed: whether one frame may hold several messages, so that only payload bytes can be counted.
    :cvar separator: how many bytes stand between two messages of one frame, if ``framed``. They belong to the size of
        a delivery.
    :cvar settle: seconds to wait after the connections are made, until the server has said what it says unasked.
    """

    path = "/"
    subprotocol = ""
    plain = False
    hello = b""
    welcome = b""
    subscribed = b""
    framed = False
    separator = 0
    settle = 0.0

    def subscribe(self, channels: list[str]) -> bytes:
        """Return what subscribes a connection."""
        raise NotImplementedError

    def publish(self, channel: str, body: bytes) -> bytes:
        """Return what publishes *body*."""
        raise NotImplementedError

    def delivery_size(self, channel: str, body: bytes, subscriptions: int = 1) -> int:
        """
        Return how many bytes a subscriber gets of that: on the wire, or payload bytes if ``framed``.

        :param subscriptions: how many the subscriber has.
        """
        raise NotImplementedError

    def echo(self, body: bytes, command: str = "echo") -> bytes:
        """Return what the server sends back to the sender."""
        raise NotImplementedError

    def echo_size(self, body: bytes, command: str = "echo") -> int:
        """Return how many bytes come back."""
        raise NotImplementedError


class HistoryDialect(Dialect):
    """
    A protocol whose servers keep what was published.

    :cvar receipt: what the answer to each of :meth:`numbered` holds, once.
    :cvar position: finds in the answer to :meth:`subscribe` where the channel stands; its groups tell it.
    :cvar recovered: is found in the answer to :meth:`resume` if nothing is missing.
    """

    receipt = b""
    position = re.compile(b"")
    recovered = re.compile(b"")

    def numbered(self, channel: str, body: bytes, number: int) -> bytes:
        """
        Return what publishes *body* and asks for an answer.

        :param number: tells this publication from the others of its connection.
        """
        raise NotImplementedError

    def burst(self, channel: str, body: bytes, count: int) -> bytes:
        """Return what publishes *body* *count* times and asks for no answer, if that is possible."""
        raise NotImplementedError

    def kept_size(self, channel: str, body: bytes, offset: int) -> int:
        """
        Return how many bytes a subscriber gets of a publication that is kept: as for :meth:`delivery_size`.

        :param offset: which publication of the channel it is; the first one is 1.
        """
        raise NotImplementedError

    def resume(self, channel: str, position: Sequence[bytes]) -> bytes:
        """
        Return what subscribes a connection again, to get what it has missed.

        :param position: the groups of ``position``.
        """
        raise NotImplementedError


class LHTTPDialect(HistoryDialect):
    """LHTTP/1.0; plain Autobahn, ``ws`` and the bare loop are given the same bytes."""

    subscribed = b"receipt-id:1\r\n"
    receipt = b"receipt-id:"
    position = re.compile(rb"position:[^=]+=(\w+-\d+)")
    recovered = re.compile(b"\r\nrecovered:")

    def subscribe(self, channels: list[str]) -> bytes:
        """Ask for a receipt, too."""
        names = " ".join(channels)
        return client_frame(f"LHTTP/1.0 chat\r\nsubscribe:{names}\r\nreceipt:1\r\n\r\n".encode("ascii"))

    def message(self, channel: str, body: bytes) -> bytes:
        """Return the message that publishes *body*."""
        return f"LHTTP/1.0 chat\r\npublish:{channel}\r\n\r\n".encode("ascii") + body

    def publish(self, channel: str, body: bytes) -> bytes:
        """Subscribers get the same message."""
        return client_frame(self.message(channel, body))

    def delivery_size(self, channel: str, body: bytes, subscriptions: int = 1) -> int:
        """The whole message comes."""
        return frame_size(len(self.message(channel, body)))

    def echo(self, body: bytes, command: str = "echo") -> bytes:
        """*command* names the processor."""
        return client_frame(f"LHTTP/1.0 {command}\r\n\r\n".encode("ascii") + body)

    def echo_size(self, body: bytes, command: str = "echo") -> int:
        """The whole message comes back."""
        return frame_size(len(f"LHTTP/1.0 {command}\r\n\r\n") + len(body))

    def numbered(self, channel: str, body: bytes, number: int) -> bytes:
        """A receipt is asked for, under a token of its own."""
        return client_frame(f"LHTTP/1.0 chat\r\npublish:{channel}\r\nreceipt:{number}\r\n\r\n".encode("ascii") + body)

    def burst(self, channel: str, body: bytes, count: int) -> bytes:
        """No receipts are asked for."""
        return self.publish(channel, body) * count

    def kept_size(self, channel: str, body: bytes, offset: int) -> int:
        """Two headers are added."""
        return frame_size(len(self.message(channel, body)) + len(f"offset:{offset}\r\nafter:{offset - 1}\r\n"))

    def resume(self, channel: str, position: Sequence[bytes]) -> bytes:
        """The receipt comes behind what was missed."""
        head = f"LHTTP/1.0 chat\r\nsubscribe:{channel}\r\nsince:{position[0].decode('ascii')}\r\nreceipt:1\r\n\r\n"
        return client_frame(head.encode("ascii"))


class ViewDialect(LHTTPDialect):
    """LHTTP/1.0 in another form."""

    subscribed = b"receipt-id"

    def __init__(self, subprotocol: str) -> None:
        """:param subprotocol: that of the form."""
        self.subprotocol = subprotocol
        self._view = VIEWS[subprotocol]

    def subscribe(self, channels: list[str]) -> bytes:
        """Ask for a receipt, too."""
        names = " ".join(channels)
        return self._frame(f"LHTTP/1.0 chat\r\nsubscribe:{names}\r\nreceipt:1\r\n\r\n".encode("ascii"))

    def publish(self, channel: str, body: bytes) -> bytes:
        """Subscribers get the same message in the same form."""
        return self._frame(self.message(channel, body))

    def delivery_size(self, channel: str, body: bytes, subscriptions: int = 1) -> int:
        """The whole message comes."""
        return frame_size(len(self._view.write(self.message(channel, body), False)))

    def _frame(self, message: bytes) -> bytes:
        return client_frame(self._view.write(message, False), binary=self._view.binary)


class EventsDialect(LHTTPDialect):
    """Server-sent events with JSON views, for subscribers: ``GET /events``. Publishers use a WebSocket."""

    plain = True
    subscribed = b"\r\n\r\nretry: "

    def subscribe(self, channels: list[str]) -> bytes:
        """The request is all that a client sends."""
        query = "&".join(f"channel={name}" for name in channels)
        return f"GET /events?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode("ascii")

    def delivery_size(self, channel: str, body: bytes, subscriptions: int = 1) -> int:
        """The command names the event."""
        view = VIEWS["lhttp.json"].write(self.message(channel, body), False)
        return len(b"event: chat\ndata: " + view + b"\n\n")


class StreamDialect(LHTTPDialect):
    """LHTTP/1.0 on a plain stream: ``--tcp``."""

    plain = True

    def subscribe(self, channels: list[str]) -> bytes:
        """Ask for a receipt, too."""
        names = " ".join(channels)
        return _counted(f"LHTTP/1.0 chat\r\nsubscribe:{names}\r\nreceipt:1\r\n\r\n".encode("ascii"))

    def publish(self, channel: str, body: bytes) -> bytes:
        """Subscribers get the same bytes."""
        return _counted(self.message(channel, body))

    def delivery_size(self, channel: str, body: bytes, subscriptions: int = 1) -> int:
        """The whole message comes, behind its length."""
        return len(self.publish(channel, body))


def _counted(message: bytes) -> bytes:
    return b"%d\n%b" % (len(message), message)


class NATSDialect(Dialect):
    """The NATS client protocol in WebSocket frames."""

    hello = client_frame(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n', binary=True)
    welcome = b"PONG\r\n"
    subscribed = b"PONG\r\n"
    framed = True
    settle = 3.0  # after about two seconds it pings each new client once

    def subscribe(self, channels: list[str]) -> bytes:
        """Subscriptions are not answered; the ping behind them is."""
        width = len(str(len(channels)))
        lines = "".join(f"SUB {channel} {number:0{width}}\r\n" for number, channel in enumerate(channels, 1))
        return client_frame(f"{lines}PING\r\n".encode("ascii"), binary=True)

    def publish(self, channel: str, body: bytes) -> bytes:
        """One command in a frame of its own, as a client that publishes one message at a time sends it."""
        return client_frame(f"PUB {channel} {len(body)}\r\n".encode("ascii") + body + b"\r\n", binary=True)

    def delivery_size(self, channel: str, body: bytes, subscriptions: int = 1) -> int:
        """A line with the number of the subscription, as long as that of the last, and the body."""
        return len(f"MSG {channel} {subscriptions} {len(body)}\r\n\r\n") + len(body)


class SocketIODialect(Dialect):
    """Socket.IO 4 over its WebSocket transport; rooms are the channels."""

    path = "/socket.io/?EIO=4&transport=websocket"
    hello = client_frame(b"40")
    welcome = b'40{"sid"'
    subscribed = b"431[]"

    def subscribe(self, channels: list[str]) -> bytes:
        """An event with an acknowledgement."""
        return client_frame(f'421["subscribe","{" ".join(channels)}"]'.encode("ascii"))

    def publish(self, channel: str, body: bytes) -> bytes:
        """An event with the room and the body."""
        return client_frame(f'42["publish","{channel}","{body.decode("ascii")}"]'.encode("ascii"))

    def delivery_size(self, channel: str, body: bytes, subscriptions: int = 1) -> int:
        """An event with the body."""
        return frame_size(len('42["message",""]') + len(body))

    def echo(self, body: bytes, command: str = "echo") -> bytes:
        """An event."""
        return client_frame(f'42["echo","{body.decode("ascii")}"]'.encode("ascii"))

    def echo_size(self, body: bytes, command: str = "echo") -> int:
        """The same event."""
        return frame_size(len('42["echo",""]') + len(body))


class CentrifugoDialect(HistoryDialect):
    """
    Centrifugo's client protocol as JSON.

    Each command is sent in a frame of its own, as its clients do. Each is answered: there is no other way to publish.
    The server joins what it has to send by newlines, as many as it likes to a frame.
    """

    path = "/connection/websocket"
    hello = client_frame(b'{"connect":{},"id":1}')
    welcome = b'"connect":{"client":'
    subscribed = b'{"id":2,"subscribe":{'
    framed = True
    separator = len("\n")
    receipt = b'"publish":{}'
    position = re.compile(rb'"subscribe":{[^}]*"epoch":"(\w+)"(?:[^}]*"offset":(\d+))?[^}]*}')
    recovered = re.compile(b'"recovered":true')

    def __init__(self, namespace: str = "") -> None:
        """:param namespace: that of all channels; by default, they have none, and the server keeps their history."""
        self._prefix = f"{namespace}:" if namespace else ""

    def subscribe(self, channels: list[str]) -> bytes:
        """
        A command.

        :raises ValueError: unless there is one channel: each would be a command of its own.
        """
        (channel,) = channels
        return self._command(2, subscribe={"channel": self._prefix + channel})

    def publish(self, channel: str, body: bytes) -> bytes:
        """A command."""
        return self.numbered(channel, body, 1)

    def delivery_size(self, channel: str, body: bytes, subscriptions: int = 1) -> int:
        """The body stands beside the publisher: its user, who is nobody, and the UUID that the server gave it."""
        return self._push_size(channel, {"data": body.decode("ascii"), "info": _INFO})

    def numbered(self, channel: str, body: bytes, number: int) -> bytes:
        """Commands have numbers anyway."""
        return self._command(number, publish={"channel": self._prefix + channel, "data": body.decode("ascii")})

    def burst(self, channel: str, body: bytes, count: int) -> bytes:
        """The answers come all the same."""
        return b"".join(self.numbered(channel, body, number) for number in range(1, count + 1))

    def kept_size(self, channel: str, body: bytes, offset: int) -> int:
        """The offset is added, and to the first one of a channel the epoch that begins with it."""
        begun = {"epoch": _EPOCH} if offset == 1 else {}
        return self._push_size(channel, {"data": body.decode("ascii"), "info": _INFO, "offset": offset} | begun)

    def resume(self, channel: str, position: Sequence[bytes]) -> bytes:
        """What was missed comes in the answer. An offset of 0 is left out of answers, as all that is 0."""
        epoch, offset = position
        where = {"recover": True, "epoch": epoch.decode("ascii"), "offset": int(offset or 0)}
        return self._command(2, subscribe={"channel": self._prefix + channel} | where)

    @staticmethod
    def _command(number: int, **request: Any) -> bytes:
        return client_frame(json.dumps(request | {"id": number}, separators=(",", ":")).encode("ascii"))

    def _push_size(self, channel: str, publication: dict[str, Any]) -> int:
        push = {"push": {"channel": self._prefix + channel, "pub": publication}}
        return len(json.dumps(push, separators=(",", ":"))) + self.separator


_INFO = {"user": "", "client": "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"}
_EPOCH = "xxxxxxxx"

CENTRIFUGO = CentrifugoDialect()
CENTRIFUGO_PLAIN = CentrifugoDialect("plain")
LHTTP = LHTTPDialect()
NATS = NATSDialect()
SOCKET_IO = SocketIODialect()
