"""Publishers that insist, and subscribers that keep positions; both speak the protocol by hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from chaos.ledger import Ledger, Place, Reader

__all__ = ["Publisher", "Subscriber", "fields"]

_ANSWER_LIMIT = 6.0
"""Seconds that an answer may take, after which the connection is given up."""

Urls = Callable[[], str]
"""Returns the address of a node."""


def fields(text: str) -> tuple[str, dict[str, str], str]:
    """Return the command, the headers and the body of a message."""
    head, _, body = text.partition("\r\n\r\n")
    start, *lines = head.split("\r\n")
    return start.removeprefix("LHTTP/1.0 "), dict(line.split(":", 1) for line in lines if line), body


def _place(text: str) -> Place:
    epoch, _, offset = text.rpartition("-")
    return epoch, int(offset)


def _places(value: str) -> dict[str, Place]:
    return {word.rpartition("=")[0]: _place(word.rpartition("=")[2]) for word in value.split()}


class _Client:
    """Connects again and again."""

    def __init__(self, urls: Urls, rng: random.Random) -> None:
        self._urls = urls
        self._rng = rng
        self.connection: ClientConnection | None = None
        self.is_over = False

    async def run(self) -> None:
        """Work until it is over."""
        while not self.is_over:
            try:
                async with asyncio.timeout(_ANSWER_LIMIT):
                    self.connection = await connect(self._urls(), compression=None, open_timeout=3, close_timeout=0.2)
                try:
                    await self.work(self.connection)
                finally:
                    self.connection.transport.abort()
            except (OSError, WebSocketException, TimeoutError, EOFError):
                pass
            await asyncio.sleep(0.05 + 0.2 * self._rng.random())

    async def work(self, connection: ClientConnection) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        """Lose the connection without a word."""
        if self.connection is not None:
            self.connection.transport.abort()


class Publisher(_Client):
    """
    Publishes one message after another, each until it has a receipt.

    :ivar sent: how many have one.
    :ivar is_stopping: whether it begins no new one.
    """

    def __init__(self, name: str, urls: Urls, rng: random.Random, ledgers: list[Ledger], pause: float) -> None:
        super().__init__(urls, rng)
        self.name = name
        self.sent = 0
        self.is_stopping = False
        self._ledgers = ledgers
        self._pause = pause
        self._number = 0
        self._waiting: tuple[Ledger, str] | None = None

    async def work(self, connection: ClientConnection) -> None:
        while not (self.is_stopping and self._waiting is None):
            if self._waiting is None:
                self._number += 1
                self._waiting = self._rng.choice(self._ledgers), f"{self.name}.{self._number}"
            ledger, name = self._waiting
            async with asyncio.timeout(_ANSWER_LIMIT):
                await connection.send(
                    f"LHTTP/1.0 chat\r\npublish:{ledger.channel}\r\nmessage-id:{name}\r\nreceipt:{name}\r\n\r\n{name}"
                )
                while True:
                    command, headers, _ = fields(str(await connection.recv()))
                    if headers.get("receipt-id") == name:
                        break
            if command == "receipt":
                ledger.accept(name, _places(headers["position"])[ledger.channel])
                self._waiting = None
                self.sent += 1
            else:
                await asyncio.sleep(0.1)  # refused: again, with the same id
            await asyncio.sleep(self._pause * self._rng.random())
        self.is_over = True


class Subscriber(_Client):
    """
    Reads all channels, and subscribes from its positions when it comes back.

    :ivar readers: what it saw, by channel.
    :ivar doubles: how often it saw a message again, at another place.
    :ivar holes: how often it saw a hole in a running stream.
    """

    def __init__(self, name: str, urls: Urls, rng: random.Random, ledgers: list[Ledger]) -> None:
        super().__init__(urls, rng)
        self.name = name
        self.readers = {ledger.channel: Reader(f"{name} in {ledger.channel}") for ledger in ledgers}
        for ledger in ledgers:
            ledger.readers.append(self.readers[ledger.channel])
        self.holes = self.doubles = 0
        self._seen: dict[str, set[str]] = {ledger.channel: set() for ledger in ledgers}
        self._asked: set[str] = set()
        self._token = 0
        self.caught_up = asyncio.Event()

    def _subscribe(self, channels: list[str]) -> str:
        self._token += 1
        ends = {name: self.readers[name].end for name in channels}
        since = " ".join(f"{name}={end[0]}-{end[1]}" for name, end in ends.items() if end is not None)
        extra = f"since:{since}\r\n" if since else ""
        names = " ".join(channels)
        return f"LHTTP/1.0 s\r\nsubscribe:{names}\r\n{extra}gaps:tell\r\nreceipt:{self._token}\r\n\r\n"

    async def work(self, connection: ClientConnection) -> None:
        self.caught_up.clear()
        self._asked.clear()
        await connection.send(self._subscribe(list(self.readers)))
        first = str(self._token)
        while not self.is_over:
            async with asyncio.timeout(20.0):
                text = str(await connection.recv())
            command, headers, body = fields(text)
            if command == "error":
                return  # come back later
            if command == "receipt":
                self._receipt(headers)
                if headers["receipt-id"] == first:
                    self.caught_up.set()
            elif command == "missed":
                self._missed(headers["channel"], headers.get("position"))
            elif "offset" in headers:
                hole = self._publication(headers, body)
                if hole is not None:
                    await connection.send(self._subscribe([hole]))

    def _receipt(self, headers: dict[str, str]) -> None:
        missed = headers.get("missed", "").split()
        for channel, place in _places(headers.get("position", "")).items():
            if channel in missed:
                self.readers[channel].miss(place)
            else:
                self.readers[channel].start(place)
            self._asked.discard(channel)

    def _missed(self, channel: str, position: str | None) -> None:
        if position is not None:
            self.readers[channel].miss(_place(position))

    def _publication(self, headers: dict[str, str], body: str) -> str | None:
        """Take a publication, or return the channel in which something before it is missing."""
        channel = headers["publish"]
        reader = self.readers[channel]
        if reader.end is None:  # it came before the first receipt
            return None
        epoch, last = reader.end
        offset, after = int(headers["offset"]), int(headers["after"])
        if offset <= last:
            return None
        if after > last:
            if channel in self._asked:
                return None
            self.holes += 1
            self._asked.add(channel)
            return channel
        if body in self._seen[channel]:  # shown before its commit, lost with the server, and sent again
            self.doubles += 1
            reader.pass_over((epoch, offset))
            return None
        self._seen[channel].add(body)
        reader.take((epoch, offset), body)
        return None
