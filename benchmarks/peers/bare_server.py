"""
The floor: one ``send()`` for each subscriber in a loop that runs in C, and nothing else.

It is told what every publication will be, and takes messages of that size for publications and all others for
subscriptions. Not a server that anybody could use.
"""

from __future__ import annotations

import collections
import itertools
import select
import socket
import sys

_ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
_RECEIPT = b"LHTTP/1.0 receipt\r\nreceipt-id:1\r\n\r\n"


def main(publication: str) -> None:
    """Serve until killed; *publication* is the message that every publisher sends."""
    payload = publication.encode("ascii")
    frame = bytes((0x81, len(payload))) + payload
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"listening on {listener.getsockname()[1]}", flush=True)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    subscribers: dict[int, socket.socket] = {}
    while True:
        for number, _ in poller.poll():
            if number == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                poller.register(connection, select.EPOLLIN)
                continue
            data = connections[number].recv(65_536)
            if not data:
                poller.unregister(number)
                subscribers.pop(number, None)
                connections.pop(number).close()
            elif data.startswith(b"GET "):
                connections[number].send(_ANSWER)
            elif len(data) % (len(payload) + 6):
                subscribers[number] = connections[number]
                connections[number].send(bytes((0x81, len(_RECEIPT))) + _RECEIPT)
            else:
                for _ in range(len(data) // (len(payload) + 6)):
                    collections.deque(map(socket.socket.send, subscribers.values(), itertools.repeat(frame)), 0)


if __name__ == "__main__":
    main(sys.argv[1])
