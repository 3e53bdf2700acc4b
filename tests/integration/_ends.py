"""
All the ways in which a connection can end, each as a client that comes and goes.

They need the processors ``visit`` and ``coroutine`` of ``_processors.py``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from integration._server import (
    CLOSE,
    RESET,
    TEXT,
    TIME_LIMIT,
    RawClient,
    client_frame,
    handshake_head,
    http_request,
    message,
)

__all__ = ["ENDS", "come_and_go", "connect_and_subscribe"]

OWN = 50
"""Channels of their own that clients have by turns: the server remembers what heads it has seen, up to a bound."""


def connect_and_subscribe(port: int, number: int) -> RawClient:
    """Return a client that is subscribed to a channel that all have, and to one of its own."""
    client = RawClient(port)
    client.send(message("chat", {"subscribe": f"all own.{number % OWN}"}))
    client.send(message("visit"))
    assert client.receive() == (TEXT, message("visit", {}, "1").encode("ascii"))
    return client


def close_cleanly(port: int, number: int) -> None:
    client = connect_and_subscribe(port, number)
    client.send(b"\x03\xe8", CLOSE)
    assert client.receive() == (CLOSE, b"\x03\xe8")
    client.close()


def hang_up(port: int, number: int) -> None:
    connect_and_subscribe(port, number).close()


def reset(port: int, number: int) -> None:
    connect_and_subscribe(port, number).reset()


def reset_in_mid_frame(port: int, number: int) -> None:
    client = connect_and_subscribe(port, number)
    frame = client_frame(message("chat", {"publish": "all"}, "x" * 200).encode("ascii"))
    client.sock.sendall(frame[: number % len(frame)])
    client.reset()


def hang_up_between_fragments(port: int, number: int) -> None:
    client = connect_and_subscribe(port, number)
    client.send("LHTTP/1.0 ch", TEXT, final=False)
    client.close()


def hang_up_in_mid_processing(port: int, number: int) -> None:
    client = connect_and_subscribe(port, number)
    for _ in range(3):
        client.send(message("coroutine"))
    client.close()


def reset_in_mid_handshake(port: int, number: int) -> None:
    with socket.create_connection(("127.0.0.1", port), TIME_LIMIT) as sock:
        head = handshake_head(port)
        sock.sendall(head[: number % len(head)])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def reset_right_after_the_handshake(port: int, number: int) -> None:
    RawClient(port).reset()


def be_refused(port: int, number: int) -> None:
    with RawClient(port, headers=["Origin: https://evil.example"]) as client:
        assert client.status == 403


def break_the_protocol(port: int, number: int) -> None:
    with connect_and_subscribe(port, number) as client:
        client.send(b"\xff", TEXT)
        assert client.receive_close()[0] == 1007


def publish_by_http(port: int, number: int) -> None:
    assert http_request(port, "POST", "/publish", message("chat", {"publish": f"all own.{number % OWN}"}))[0] == 200


ENDS: tuple[Callable[[int, int], None], ...] = (
    close_cleanly,
    hang_up,
    reset,
    reset_in_mid_frame,
    hang_up_between_fragments,
    hang_up_in_mid_processing,
    reset_in_mid_handshake,
    reset_right_after_the_handshake,
    be_refused,
    break_the_protocol,
    publish_by_http,
)


def come_and_go(port: int, ends: tuple[Callable[[int, int], None], ...], count: int) -> None:
    """Let *count* clients connect and end, in turn in each of the ways of *ends*."""
    for number in range(count):
        ends[number % len(ends)](port, number)
