"""
What the load generator says to each server, as bytes built beforehand, and how many bytes come back.

Used by :mod:`benchmarks.scenarios`. The body of a publication is the same for all; who puts more around it has more
to send.
"""

from __future__ import annotations

from benchmarks.wire import client_frame, frame_size

__all__ = ["LHTTP", "NATS", "SOCKET_IO", "Dialect", "LHTTPDialect", "NATSDialect", "SocketIODialect"]


class Dialect:
    """
    A protocol on top of WebSocket.

    :cvar path: where the WebSocket is.
    :cvar hello: sent first on each connection; empty if there is nothing to say.
    :cvar welcome: what the answer to it ends with or holds.
    :cvar subscribed: what the answer to :meth:`subscribe` holds.
    :cvar framed: whether one frame may hold several messages, so that only payload bytes can be counted.
    :cvar settle: seconds to wait after the connections are made, until the server has said what it says unasked.
    """

    path = "/"
    hello = b""
    welcome = b""
    subscribed = b""
    framed = False
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


class LHTTPDialect(Dialect):
    """LHTTP/1.0; plain Autobahn, ``ws`` and the bare loop are given the same bytes."""

    subscribed = b"receipt-id:1\r\n\r\n"

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


LHTTP = LHTTPDialect()
NATS = NATSDialect()
SOCKET_IO = SocketIODialect()
