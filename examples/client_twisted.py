"""
A Twisted program that listens to a channel and publishes to it: a clock.

Start a server, and then the clock::

    twistd -n lhttp --port 8081
    python examples/client_twisted.py ws://127.0.0.1:8081/ clock 3

It publishes the time once a second, prints the messages of the channel, and ends after this number of messages. Stop
the server and start it again in the meantime: the clock goes on.
"""

import sys
import time

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, react

from lhttp_tx import LHTTPError
from lhttp_tx.client import Client, State


def print_state(state: State, reason: str) -> None:
    """Print the state of the connection."""
    print(f"{state.value}: {reason}", file=sys.stderr, flush=True)


async def main(reactor: IReactorTime, url: str, channel: str, count: str) -> None:
    """Publish the time and print it, *count* times."""
    client = Client(url, reactor=reactor, on_state=print_state)
    await client.connect()
    subscription = await client.subscribe(channel)

    async def tick() -> None:
        try:
            await client.publish(channel, "time", body=time.strftime("%H:%M:%S"))
        except LHTTPError as error:
            print(f"not published: {error}", file=sys.stderr)

    ticking = LoopingCall(tick)
    ticking.start(1.0)
    left = int(count)
    async for message in subscription:
        print(message.text, flush=True)
        left -= 1
        if not left:
            break
    ticking.stop()
    await client.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: client_twisted.py URL CHANNEL COUNT")
    react(main, sys.argv[1:])
