"""
The client for programs without a loop: scripts, and views of Django or Flask. Each call blocks until it is done.

::

    from lhttp_tx.client.sync import Client

    with Client("ws://127.0.0.1:8081/") as client:
        client.publish("room.a", {"text": "hello"})

A thread runs the connection, with :mod:`lhttp_tx.client.aio` inside. Names and arguments are the same. Several threads
may use one client.
"""

from lhttp_tx.client.sync.client import Client
from lhttp_tx.client.sync.presence import Presence
from lhttp_tx.client.sync.subscription import Subscription

__all__ = ["Client", "Presence", "Subscription"]
