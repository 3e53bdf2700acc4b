"""
What a cluster promises of channels without history, of presence and of logins while everything fails: a world of
``python -m chaos``.

Publishers publish once, some with receipts. Subscribers ask to be told of gaps. Users log in at one node after another.
At the end each node says who is there, and each user has the newest connection only.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from chaos.accounts import Publication, Stay, problems
from chaos.clients import fields
from chaos.worlds import Bus

__all__ = ["run"]

_CHANNELS = ("room.0", "room.1")
_PUBLISHERS, _SUBSCRIBERS, _USERS = 4, 6, 4
_PAUSE = 0.02
_LIMIT = 60.0
"""Seconds that the end may take, once everything runs again."""

_QUIET = 6.0
"""Seconds of silence at the end, in which two heartbeats tell what was lost."""

_ANSWER_LIMIT = 20.0
"""Seconds that an answer may take; nodes wait for others, and stand still."""

_UNKNOWN = "it is not known whether"
_LOST = (OSError, WebSocketException, TimeoutError, EOFError)


async def _open(url: str, name: str) -> ClientConnection:
    # An attempt that is given up may be a login later. So it has longer than a node stands still.
    return await connect(f"{url}?name={name}", compression=None, open_timeout=_LIMIT, ping_interval=None)


class _Publisher:
    """Publishes numbers, each once, half of them with a receipt."""

    def __init__(self, name: str, world: Bus, rng: random.Random) -> None:
        self.sent: list[Publication] = []
        self.is_over = False
        self._name, self._world, self._rng = name, world, rng

    async def run(self) -> None:
        """Publish until it is over and everything has an answer."""
        for number in itertools.count():
            if self.is_over:
                return
            with contextlib.suppress(*_LOST):
                connection = await _open(self._world.url(), self._name)
                waiting: dict[str, Publication] = {}
                reading = asyncio.ensure_future(self._read(connection, waiting))
                try:
                    await self._publish(connection, f"{self._name}.{number}", waiting, reading)
                finally:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                    connection.transport.abort()
            await asyncio.sleep(0.2)

    async def _publish(
        self, connection: ClientConnection, client: str, waiting: dict[str, Publication], reading: asyncio.Future[None]
    ) -> None:
        for number in itertools.count():
            if reading.done():
                return
            if self.is_over:
                async with asyncio.timeout(_ANSWER_LIMIT):
                    while any(each.number % 2 for each in waiting.values()) and not reading.done():
                        await asyncio.sleep(0.02)
                return
            each = Publication(client, number, self._rng.choice(_CHANNELS), time.monotonic())
            self.sent.append(each)
            waiting[each.name] = each
            receipt = f"receipt:{each.name}\r\n" if number % 2 else ""
            await connection.send(f"LHTTP/1.0 chat\r\npublish:{each.channel}\r\n{receipt}\r\n{each.name}")
            await asyncio.sleep(2 * _PAUSE * self._rng.random())

    async def _read(self, connection: ClientConnection, waiting: dict[str, Publication]) -> None:
        """Take answers, which come in the order of what they answer."""
        async for text in connection:
            command, headers, _ = fields(str(text))
            name = headers.get("receipt-id")
            if command == "error" and name is None:  # for one without a receipt: it is not known which
                for each in [each for each in waiting.values() if each.number % 2 == 0]:
                    del waiting[each.name]
            elif name in waiting and command in ("receipt", "error"):
                found = waiting.pop(name)
                if command == "error":
                    found.is_refused = _UNKNOWN not in headers["reason"]
                    continue
                found.accepted = time.monotonic()
                for each in [each for each in waiting.values() if each.number < found.number]:
                    if each.number % 2 == 0:
                        waiting.pop(each.name).accepted = found.accepted


class _Subscriber:
    """
    Reads all channels, and comes back to another node when it has lost its connection.

    :ivar stays: what each connection got.
    :ivar sure: set while its connection has a receipt for everything.
    """

    def __init__(self, name: str, world: Bus, rng: random.Random) -> None:
        self.name = name
        self.stays: list[Stay] = []
        self.sure = asyncio.Event()
        self.connection: ClientConnection | None = None
        self._world, self._rng = world, rng

    @property
    def count(self) -> int:
        """How much has come."""
        return sum(len(stay.taken) + len(stay.missed) for stay in self.stays)

    async def run(self) -> None:
        """Read until it is cancelled."""
        for number in itertools.count():
            with contextlib.suppress(*_LOST):
                self.connection = await _open(self._world.url(), self.name)
                try:
                    await self._read(self.connection, f"{self.name}.{number}")
                finally:
                    self.sure.clear()
                    self.connection.transport.abort()
            await asyncio.sleep(0.1 + 0.3 * self._rng.random())

    async def _read(self, connection: ClientConnection, name: str) -> None:
        stays = {channel: Stay(name, channel) for channel in _CHANNELS}
        self.stays += stays.values()
        ask = f"LHTTP/1.0 s\r\nsubscribe:{' '.join(_CHANNELS)}\r\ngaps:tell\r\nreceipt:s\r\n\r\n"
        await connection.send(ask)
        async for text in connection:
            command, headers, body = fields(str(text))
            if command == "chat":
                stays[headers["publish"]].taken.append(body)
            elif command == "missed":
                stays[headers["channel"]].missed.append(time.monotonic())
            elif command == "error":
                return  # come back later
            elif command == "receipt":
                unsure = headers.get("unsure", "").split()
                for channel in set(stays) - set(unsure):
                    stays[channel].sure = stays[channel].sure or time.monotonic()
                if unsure:
                    await asyncio.sleep(0.2)
                    await connection.send(ask)
                else:
                    self.sure.set()

    def cut(self) -> None:
        """Lose the connection without a word."""
        if self.connection is not None:
            self.connection.transport.abort()

    def settle(self) -> None:
        """Say that all is quiet, and the connection is there."""
        for stay in self.stays[-len(_CHANNELS) :]:
            stay.is_whole = self.sure.is_set()


class _User:
    """
    Logs in at one node after another, and leaves the older connections to the server.

    :ivar wrong: what was wrong.
    :ivar open: the connections that the server has not closed, the newest last.
    """

    def __init__(self, name: str, world: Bus, rng: random.Random) -> None:
        self.name = name
        self.wrong: list[str] = []
        self.open: list[int] = []
        self.is_over = False
        self._world, self._rng = world, rng
        self._attempts = 0
        self._reading: list[asyncio.Future[None]] = []

    async def run(self) -> None:
        """Log in again and again until it is over, and then once more."""
        while not self.is_over:
            await self._login()
            await asyncio.sleep(1 + 3 * self._rng.random())
        async with asyncio.timeout(_LIMIT):
            while not await self._login():
                await asyncio.sleep(0.2)

    async def _login(self) -> bool:
        self._attempts += 1
        number = self._attempts
        try:
            connection = await _open(self._world.url(), self.name)
            await connection.send(f"LHTTP/1.0 s\r\nsubscribe:{_CHANNELS[0]}\r\n\r\n")
        except _LOST:
            return False
        self.open.append(number)
        self._reading.append(asyncio.ensure_future(self._read(connection, number)))
        return True

    async def _read(self, connection: ClientConnection, number: int) -> None:
        try:
            while True:
                await connection.recv()
        except ConnectionClosed as ended:
            if ended.rcvd is not None and ended.rcvd.code == 4409 and number == self._attempts:
                self.wrong.append(f"the newest connection of {self.name}, number {number}, was closed with 4409")
        finally:
            self.open.remove(number)
            connection.transport.abort()

    def cancel(self) -> None:
        """Hang up."""
        for each in self._reading:
            each.cancel()


async def _people(port: int) -> tuple[dict[str, int], int]:
    """Ask a node who is in the first channel: connections by user, and how many there are in all."""
    async with asyncio.timeout(_ANSWER_LIMIT):
        connection = await _open(f"ws://127.0.0.1:{port}/", f"asker{port}")
        try:
            await connection.send(f"LHTTP/1.0 presence\r\nchannel:{_CHANNELS[0]}\r\n\r\n")
            answer = json.loads(fields(str(await connection.recv()))[2])
        finally:
            connection.transport.abort()
    return {each["user"]: len(each["connections"]) for each in answer["people"]}, answer["connections"]


async def _becomes(condition: Callable[[], Awaitable[str]]) -> list[str]:
    """Wait until *condition* returns nothing, or return what it says at last."""
    end = time.monotonic() + _LIMIT
    while True:
        try:
            said = await condition()
        except _LOST as error:
            said = f"a node does not answer: {error!r}"
        if not said:
            return []
        if time.monotonic() > end:
            return [said]
        await asyncio.sleep(0.5)


async def _rage(
    world: Bus, rng: random.Random, subscribers: list[_Subscriber], seconds: float, happened: list[str]
) -> None:
    """Let things happen for *seconds*; add to *happened* what, and when."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(0.3 + 1.5 * rng.random())
        begin = time.monotonic()
        if rng.random() < world.cuts:
            subscriber = rng.choice(subscribers)
            subscriber.cut()
            what = f"cut {subscriber.name} off"
        else:
            what = await rng.choice(world.faults())()
        happened.append(f"{begin:.2f} to {time.monotonic():.2f}: {what}")


async def run(seed: int, seconds: float, directory: Path) -> tuple[list[str], str]:
    """
    Run once.

    :returns: what was wrong, and a line about the run.
    """
    rng = random.Random(seed)
    world = Bus(directory, rng)
    publishers = [_Publisher(f"p{number}", world, random.Random(rng.random())) for number in range(_PUBLISHERS)]
    subscribers = [_Subscriber(f"s{number}", world, random.Random(rng.random())) for number in range(_SUBSCRIBERS)]
    users = [_User(f"u{number}", world, random.Random(rng.random())) for number in range(_USERS)]
    reading: list[asyncio.Future[None]] = []
    working: list[asyncio.Future[None]] = []
    names = {each.name: 1 for each in (*subscribers, *users)}
    wrong: list[str] = []
    happened: list[str] = []
    first = time.monotonic()

    async def presence() -> str:
        for port in world.ports:
            found = await _people(port)
            if found != (names, len(names)):
                return f"the node at {port} sees {found[1]} connections of {found[0]}, and there is one of {names}"
        return ""

    async def logins() -> str:
        return ", ".join(f"{each.name} has {len(each.open)} connections" for each in users if len(each.open) != 1)

    try:
        await world.start()
        reading += [asyncio.ensure_future(each.run()) for each in subscribers]
        async with asyncio.timeout(_LIMIT):
            await asyncio.gather(*(each.sure.wait() for each in subscribers))
        working += [asyncio.ensure_future(each.run()) for each in (*publishers, *users)]
        await asyncio.sleep(_QUIET)
        first = time.monotonic()
        await _rage(world, rng, subscribers, seconds, happened)
        await world.heal()
        for each in (*publishers, *users):
            each.is_over = True
        async with asyncio.timeout(2 * _LIMIT):
            await asyncio.gather(*working)
            await asyncio.gather(*(each.sure.wait() for each in subscribers))
        await _settle(subscribers)
        for subscriber in subscribers:
            subscriber.settle()
        wrong += await _becomes(logins) + await _becomes(presence)
    except (TimeoutError, RuntimeError) as error:
        wrong.append(f"the run broke off: {error!r}")
    finally:
        for task in (*reading, *working):
            task.cancel()
        for user in users:
            user.cancel()
        await asyncio.gather(*reading, *working, return_exceptions=True)
        await world.stop()
    sent = [each for publisher in publishers for each in publisher.sent]
    stays = [stay for subscriber in subscribers for stay in subscriber.stays]
    wrong += [text for user in users for text in user.wrong]
    wrong += problems(sent, stays, world.short_cuts, first)
    told = (
        f"{len(happened)} faults, {len(sent)} published, {sum(each.accepted is not None for each in sent)} accepted, "
        f"{sum(each.is_refused for each in sent)} refused, {len(stays)} stays, "
        f"{sum(len(stay.missed) for stay in stays)} times told of gaps, {sum(each._attempts for each in users)} logins"
    )
    if wrong:
        wrong = [*wrong[:20], f"what happened: {'; '.join(happened)}"]
    return wrong + world.complaints(), told


async def _settle(subscribers: list[_Subscriber]) -> None:
    """Wait until nothing has come for a while."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < _QUIET:
        now = sum(each.count for each in subscribers)
        if now != count:
            count, since = now, time.monotonic()
        await asyncio.sleep(0.1)
