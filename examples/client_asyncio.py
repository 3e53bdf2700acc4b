"""
An asyncio program that uses the client, with Twisted's asyncio reactor::

    twistd -n lhttp --port 8081 --processor examples/echo.py:echo
    python examples/client_asyncio.py ws://127.0.0.1:8081/ room.a

Everything in ``main`` is asyncio. ``asFuture`` turns a Deferred of the client into a future, and ``iterate`` turns a
subscription into an iterator.
"""

import asyncio
import sys
from typing import Any

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred

from lhttp_tx.client import Client, Subscription


async def listen(subscription: Subscription, count: int) -> None:
    """Print *count* messages of a channel."""
    async for message in subscription.iterate(asyncio.get_running_loop()):
        print(message.text, flush=True)
        count -= 1
        if not count:
            return


async def main(reactor: Any, url: str, channel: str) -> None:
    """Listen and publish at the same time, then ask a processor."""
    loop = asyncio.get_running_loop()
    client = Client(url, reactor=reactor)
    await client.connect().asFuture(loop)
    subscription = client.subscribe(channel)
    await subscription.confirmed().asFuture(loop)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(listen(subscription, 3))
        for number in range(3):
            await asyncio.sleep(0.1)
            await client.publish(channel, "chat", body=f"message {number}").asFuture(loop)
    reply = await client.request("echo", body="hello").asFuture(loop)
    print(f"echo: {reply.text}", flush=True)
    await client.close().asFuture(loop)


def run(*arguments: str) -> None:
    """Run ``main`` in the asyncio reactor."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)
    from twisted.internet import reactor
    from twisted.internet.task import react

    react(lambda _: Deferred.fromFuture(asyncio.ensure_future(main(reactor, *arguments), loop=loop)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: client_asyncio.py URL CHANNEL")
    run(*sys.argv[1:])
