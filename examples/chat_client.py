"""
A chat client for the terminal, for a server that runs ``examples/chat.py``.

Run it with a name and a room. It sends each line that you type, and prints the messages of the room::

    python examples/chat_client.py ws://127.0.0.1:8081/ jack room.a

It needs the ``websockets`` library and, of lhttp_tx, only the codec.
"""

import asyncio
import sys

from websockets.asyncio.client import ClientConnection, connect

from lhttp_tx import Message, parse


async def listen(connection: ClientConnection) -> None:
    """Print messages until the server closes the connection."""
    async for data in connection:
        message = parse(data.encode() if isinstance(data, str) else data)
        if message.command == "error":
            print(f"error {message.headers.get('status')}: {message.headers.get('reason')}", flush=True)
        elif message.command == "receipt":
            print(f"you are in {message.headers.get('receipt-id')}", flush=True)
        else:
            print(f"{message.headers.get('from', 'server')}: {message.text}", flush=True)


async def talk(connection: ClientConnection, room: str) -> None:
    """Publish each line of the standard input."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        await connection.send(Message("chat", {"publish": room}, line.rstrip("\n")).raw.decode())


async def main(url: str, name: str, room: str) -> None:
    """Log in, join the room, and talk until the input ends."""
    async with connect(url) as connection:
        await connection.send(Message("login", body=name).raw.decode())
        await connection.send(Message("chat", {"subscribe": room, "receipt": room}).raw.decode())
        listening = asyncio.create_task(listen(connection))
        await talk(connection, room)
    await listening


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: chat_client.py URL NAME ROOM")
    asyncio.run(main(*sys.argv[1:]))
