"""One connection of an actor, by asyncio: WebSocket by hand, as in ``integration._server``."""

from __future__ import annotations

import asyncio
import socket
from itertools import count, cycle

from integration._honest import FrameReader
from integration._server import CLOSE, PING, PONG, RESET, TEXT, client_frame, handshake_head, message

from soak.ledger import Ledger, Publisher, Subscription

__all__ = ["Client", "Ended"]

_WAIT = 30.0
"""Seconds that an answer may take."""

_TOKENS = 10
"""Tokens of receipts that a client uses by turns: the server remembers what heads it has seen, up to a bound."""

_numbers = count()


class Ended(Exception):
    """The connection has ended."""


class Client(asyncio.Protocol):
    """
    A client that keeps its account in the ledger.

    :ivar name: known to the ledger.
    :ivar subscriptions: by channel.
    :ivar close_code: the code with which the server closed, if it said one.
    :ivar errors: ``error`` messages that came without a receipt.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.name = f"c{next(_numbers)}"
        self.ledger = ledger
        self.subscriptions: dict[str, Subscription] = {}
        self.close_code: int | None = None
        self.errors = 0
        self._transport: asyncio.Transport | None = None
        self._reader: FrameReader | None = None
        self._head = b""
        self._tokens = cycle(map(str, range(_TOKENS)))
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._confirming: dict[str, str] = {}
        self._publishers: dict[str, Publisher] = {}
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._opened: asyncio.Future[None] = loop.create_future()

    @classmethod
    async def connect(cls, ledger: Ledger, port: int, *, receive_buffer: int | None = None) -> Client:
        """Return a connected client; raise :exc:`Ended` if the server does not want it."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", port))
        _, client = await loop.create_connection(lambda: cls(ledger), sock=sock)
        client._write(handshake_head(port))
        async with asyncio.timeout(_WAIT):
            await client._opened
        return client

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            self._head += data
            head, blank, data = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            self._reader = FrameReader()
            if not self._opened.done():
                if head.startswith(b"HTTP/1.1 101 "):
                    self._opened.set_result(None)
                else:
                    self._opened.set_exception(Ended(head.partition(b"\r\n")[0].decode()))
        for opcode, payload in self._reader.feed(data):
            if opcode == TEXT:
                self._take(payload)
            elif opcode == PING:
                self._write(client_frame(payload, PONG))
            elif opcode == CLOSE:
                self.close_code = int.from_bytes(payload[:2], "big")
                self._write(client_frame(payload[:2], CLOSE))

    def connection_lost(self, error: Exception | None) -> None:
        for waiting in (*self._waiting.values(), self._opened):
            if not waiting.done():
                waiting.set_exception(Ended(f"closed with {self.close_code}"))
                waiting.exception()  # whether or not anybody waits
        for subscription in self.subscriptions.values():
            self.ledger.drop(subscription)
        self.subscriptions.clear()
        self.ledger.end_publisher(self.name)
        if not self.ended.done():
            self.ended.set_result(None)

    # Doing things

    async def ask(self, command: str, headers: dict[str, str], body: str = "") -> bytes:
        """Send a message with a receipt; return the receipt, or the error that comes instead."""
        return await self._ask(next(self._tokens), command, headers, body)

    async def subscribe(self, channel: str) -> None:
        """Subscribe; the account is opened at the moment at which the receipt comes."""
        token = next(self._tokens)
        self._confirming[token] = channel
        await self._ask(token, "chat", {"subscribe": channel}, "")
        if channel not in self.subscriptions:
            raise Ended("not subscribed")

    async def _ask(self, token: str, command: str, headers: dict[str, str], body: str) -> bytes:
        self._waiting[token] = asyncio.get_running_loop().create_future()
        try:
            self._write(client_frame(message(command, {**headers, "receipt": token}, body).encode("ascii")))
            async with asyncio.timeout(_WAIT):
                return await self._waiting[token]
        except TimeoutError:
            self.ledger.fault(f"{self.name}: no receipt of {command} {headers}")
            raise Ended("no receipt") from None
        finally:
            del self._waiting[token]

    async def unsubscribe(self, channel: str) -> None:
        """Unsubscribe, and close the account: what was accepted before must be there before the receipt."""
        subscription = self.subscriptions[channel]
        due = self.ledger.due(subscription)
        await self.ask("chat", {"unsubscribe": channel})
        if self.subscriptions.pop(channel, None) is not None:
            self.ledger.close(subscription, due)

    async def publish(self, channel: str, filler: str = "") -> None:
        """Publish the next message to *channel* and wait for the receipt."""
        found = self._publishers.get(channel)
        if found is None:
            found = self._publishers[channel] = self.ledger.publisher(self.name, channel)
        number, found.sent = found.sent, found.sent + 1
        self.ledger.sent += 1
        answer = await self.ask("chat", {"publish": channel}, f"{self.name} {number} {filler}")
        if answer.startswith(b"LHTTP/1.0 error"):
            self.ledger.fault(f"{self.name}: {channel} {number} was refused: {answer!r}")
        found.accepted = number + 1
        self.ledger.accepted += 1

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._write(data)

    def stop_reading(self) -> None:
        """Read nothing until :meth:`go_on_reading`."""
        assert self._transport is not None
        self._transport.pause_reading()

    def go_on_reading(self) -> None:
        """Read again, and faster than with the buffer that was small to stall the sooner."""
        assert self._transport is not None
        if not self._transport.is_closing():
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_048_576)
            self._transport.resume_reading()

    async def leave(self) -> None:
        """Close every account and the connection in good order."""
        for channel in list(self.subscriptions):
            await self.unsubscribe(channel)
        self._write(client_frame(b"\x03\xe8", CLOSE))
        async with asyncio.timeout(_WAIT):
            await asyncio.shield(self.ended)

    async def hang_up(self, *, reset: bool) -> None:
        """Be gone without a word."""
        assert self._transport is not None
        if reset:
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()
        else:
            self._transport.close()
        await asyncio.shield(self.ended)

    # Taking what comes

    def _take(self, payload: bytes) -> None:
        head, _, body = payload.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        headers = dict(line.split(":", 1) for line in lines)
        if first in ("LHTTP/1.0 receipt", "LHTTP/1.0 error"):
            token = headers.get("receipt-id")
            if token is None:
                self.errors += 1
                return
            channel = self._confirming.pop(token, None)
            if channel is not None and first == "LHTTP/1.0 receipt":
                # Now, not when the task that waits has its turn: messages may follow in the same read.
                self.subscriptions[channel] = self.ledger.open(channel)
            waiting = self._waiting.get(token)
            if waiting is not None and not waiting.done():
                waiting.set_result(payload)
            return
        subscription = self.subscriptions.get(headers["publish"])
        name, number, _ = body.decode("ascii").split(" ", 2)
        if subscription is not None:
            self.ledger.deliver(subscription, name, int(number))

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise Ended("closed")
        self._transport.write(data)
