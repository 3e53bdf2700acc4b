"""Programs that use the three kinds of Python clients; see ``sample_plugin.py``."""

from __future__ import annotations

from typing import Any, Literal, assert_type

from twisted.internet.defer import Deferred

from lhttp_tx.client import Client, Message, Person, Presence, PresenceChange, Subscription, aio, sync


def joined(user: str | None, connection: str) -> None:
    """Called when somebody joins or leaves."""
    print(user, connection)


async def with_twisted(reactor: Any) -> None:
    """A coroutine of Twisted."""
    client = Client("ws://127.0.0.1:8081/", reactor=reactor)

    def synced(presence: Presence) -> None:
        print(presence.users)

    waiting = client.presence("room", on_join=joined, on_leave=joined, on_sync=synced, on_change=synced)
    assert_type(waiting, Presence)
    presence = await waiting
    assert_type(presence, Presence)
    assert_type(presence.people, list[Person])
    assert_type(presence.people[0].user, str | None)
    assert_type(presence.people[0].connections, tuple[str, ...])
    assert_type(presence.users, list[str])
    assert_type((presence.count, presence.complete, presence.has("a")), tuple[int, bool, bool])
    assert_type(presence.next(), Deferred[PresenceChange])
    async for change in presence:
        assert_type(change, PresenceChange)
        assert_type(change.event, Literal["join", "leave", "sync"])
        assert_type(change.connection, str | None)
    assert_type(presence.close(), Deferred[None])
    client.presence("room", on_join=synced)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await client.subscribe("room"), Subscription)


async def with_asyncio() -> None:
    """A coroutine of asyncio."""

    def synced(presence: aio.Presence) -> None:
        print(presence.users)

    def ended(error: Exception | None) -> None:
        print(error)

    async with aio.Client("ws://127.0.0.1:8081/") as client:
        presence = await client.presence("room", on_join=joined, on_sync=synced, on_end=ended, buffer=10, timeout=5)
        assert_type(presence, aio.Presence)
        assert_type(presence.people, list[Person])
        assert_type(await presence.next(), PresenceChange)
        async for change in presence:
            assert_type(change, PresenceChange)
        await presence.close()
        subscription = await client.subscribe("room")
        assert_type(await subscription.next(), Message)
        assert_type(subscription.dropped, int)
        async for message in subscription:
            assert_type(message, Message)


def without_a_loop() -> None:
    """A script."""

    def synced(presence: sync.Presence) -> None:
        print(presence.users)

    with sync.Client("ws://127.0.0.1:8081/") as client:
        presence = client.presence("room", on_leave=joined, on_change=synced)
        assert_type(presence, sync.Presence)
        assert_type(presence.next(timeout=1.0), PresenceChange)
        for change in presence:
            assert_type(change, PresenceChange)
        presence.close()
        client.presence("room", on_change=joined)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        subscription = client.subscribe("room")
        assert_type(subscription.next(), Message)
        assert_type(list(subscription), list[Message])
