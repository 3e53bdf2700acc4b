"""The kinds of clients of a soak: each is a coroutine that comes and goes until the soak is over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from integration._server import BINARY, CLOSE, TEXT, client_frame, message

from soak.client import Client, Ended
from soak.ledger import Ledger

__all__ = ["Stage", "cast"]

ROOMS = 50
FLOOD_SIZE = 16_000
FLOOD_RATE = 100
ACCOUNT_TIME = 60.0
"""Seconds after which those who stay make up their account and begin a new one."""

_MALFORMED = (
    b"",
    b"hello",
    b"LHTTP/1.0 chat\r\nno colon\r\n\r\n",
    b"LHTTP/2.0 chat\r\n\r\n",
    b"LHTTP/1.0 chat\r\nsubscribe:*\r\n\r\n",
    b"LHTTP/1.0 chat\r\npublish:$own\r\n\r\n",
    b"LHTTP/1.0 chat\r\nmultipart:5 3\r\n\r\nx",
    b"LHTTP/1.0 chat\r\nupstream:GET http://127.0.0.1/\r\n\r\n",
    b"LHTTP/1.0 chat\r\n\r\n" + b"x" * 65_536,
)
"""Each costs an error and nothing else."""

_ILLEGAL = (
    (client_frame(b"x", 3), {1002}),
    (client_frame(b"\xff", TEXT), {1007}),
    (client_frame(b"x", 0), {1002}),
    (client_frame(b"x" * 126, 9), {1002}),
    (b"\x81\x01x", {1002}),
    (b"\xc1" + client_frame(b"x")[1:], {1002}),
    (b"\x82\xff" + (2**40).to_bytes(8, "big") + b"\0\0\0\0", {1009}),
    (client_frame(b"\x00", CLOSE), {1002, None}),
    (client_frame(b"x" * 140_000, BINARY), {1009}),
)
"""Each closes the connection, with one of these codes, or without a close frame if that is among them."""


@dataclass
class Stage:
    """
    What all actors of a soak share.

    :ivar over: set when they are to come to an end.
    """

    port: int
    ledger: Ledger
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def rest(self, least: float, most: float) -> bool:
        """Wait for a while; return whether the soak goes on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(least, most)):
                await self.over.wait()
        return not self.over.is_set()


def _rooms(most: int) -> list[str]:
    return random.sample([f"room.{number}" for number in range(ROOMS)], random.randint(1, most))


async def stay(stage: Stage) -> None:
    """Stay all the time; subscribe and publish."""
    client = await Client.connect(stage.ledger, stage.port)
    loop = asyncio.get_running_loop()
    while not stage.over.is_set():
        rooms, end = _rooms(3), loop.time() + ACCOUNT_TIME
        for room in rooms:
            await client.subscribe(room)
        while loop.time() < end and await stage.rest(0.5, 1.5):
            await client.publish(random.choice(rooms))
        for room in rooms:
            await client.unsubscribe(room)
    await client.leave()


async def come_and_go(stage: Stage) -> None:
    """Come, subscribe, publish, and go: in good order half of the time."""
    while await stage.rest(0, 3):
        client = await Client.connect(stage.ledger, stage.port)
        rooms = _rooms(3)
        for room in rooms:
            await client.subscribe(room)
        for _ in range(random.randint(0, 10)):
            await client.publish(random.choice(rooms), "x" * random.randint(0, 500))
            if not await stage.rest(0, 2):
                break
            if random.random() < 0.2:
                room = random.choice(rooms)
                if room in client.subscriptions:
                    await client.unsubscribe(room)
                else:
                    await client.subscribe(room)
        if stage.over.is_set() or random.random() < 0.5:
            await client.leave()
            continue
        # Without a word, with a message on its way that nobody waits for, and perhaps half of another.
        with suppress(TimeoutError, Ended):
            async with asyncio.timeout(0):
                await client.publish(random.choice(rooms))
        if random.random() < 0.3:
            frame = client_frame(message("chat", {"publish": rooms[0]}, "never whole").encode("ascii"))
            client.send_raw(frame[: random.randrange(1, len(frame))])
        await client.hang_up(reset=random.random() < 0.5)


async def stall(stage: Stage) -> None:
    """Subscribe to a channel with much traffic and do not read for a while."""
    while await stage.rest(0, 3):
        client = await Client.connect(stage.ledger, stage.port, receive_buffer=8192)
        await client.subscribe("flood")
        await stage.rest(0, 1)
        client.stop_reading()
        await stage.rest(0, 15)
        client.go_on_reading()
        try:
            await client.leave()
        except Ended:
            await client.ended
            stage.ledger.stalled += 1


async def flood(stage: Stage) -> None:
    """Publish what those who stall do not read."""
    client = await Client.connect(stage.ledger, stage.port)
    while await stage.rest(1 / FLOOD_RATE, 1 / FLOOD_RATE):
        await client.publish("flood", "x" * FLOOD_SIZE)
    await client.leave()


async def break_rules(stage: Stage) -> None:
    """Send what is malformed, which costs an error each, then what is illegal, which costs the connection."""
    while await stage.rest(0, 3):
        client = await Client.connect(stage.ledger, stage.port)
        await client.subscribe(*_rooms(1))
        sent = 0
        while sent < 5 and await stage.rest(0, 1):
            client.send_raw(client_frame(random.choice(_MALFORMED), random.choice((TEXT, BINARY))))
            sent += 1
        await client.ask("chat", {})
        if client.errors != sent:
            stage.ledger.fault(f"{client.name}: {client.errors} errors for {sent} malformed messages")
        frame, codes = random.choice(_ILLEGAL)
        client.send_raw(frame)
        async with asyncio.timeout(30):
            await client.ended
        if client.close_code not in codes:
            stage.ledger.fault(f"{client.name}: closed with {client.close_code} for {frame[:20]!r}")


def cast(stage: Stage, count: int) -> list[asyncio.Task[None]]:
    """Let *count* actors begin; return their tasks, which end when the soak is over."""
    share: list[tuple[Callable[[Stage], Awaitable[None]], int]] = [
        (flood, 1),
        (stay, max(1, count // 12)),
        (stall, max(1, count // 50)),
        (break_rules, max(1, count // 10)),
    ]
    share.append((come_and_go, count - sum(number for _, number in share)))

    async def play(actor: Callable[[Stage], Awaitable[None]]) -> None:
        try:
            await actor(stage)
        except (Ended, OSError, TimeoutError) as error:
            stage.ledger.fault(f"{actor.__name__}: {error!r}")

    return [asyncio.create_task(play(actor)) for actor, number in share for _ in range(number)]
