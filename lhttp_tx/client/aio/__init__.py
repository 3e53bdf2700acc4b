"""
The client for asyncio programs. It needs no installed reactor, and hides Twisted.

::

    from lhttp_tx.client.aio import Client

    async with Client("ws://127.0.0.1:8081/") as client:
        subscription = await client.subscribe("room.a")
        await client.publish("room.a", {"text": "hello"})
        async for message in subscription:
            print(message.json())

The names and the order of arguments are those of the JavaScript client. Inside, it is the client of
:mod:`lhttp_tx.client`. So lost connections, history and logins work as described there.
"""

from lhttp_tx.client.aio.client import Client
from lhttp_tx.client.aio.presence import Presence
from lhttp_tx.client.aio.subscription import Subscription

__all__ = ["Client", "Presence", "Subscription"]
