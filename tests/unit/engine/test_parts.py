"""lhttp_tx.filters.multipart: a body of parts is split for processors, as long as there are not too many."""

from __future__ import annotations

import pytest

from lhttp_tx import Request, processor
from lhttp_tx.codec.headers import Headers
from lhttp_tx.codec.multipart import Part
from lhttp_tx.testing import Server


@processor("count")
def count(request: Request) -> None:
    request.reply(body=str(len(request.parts)))


@pytest.mark.parametrize(
    ("parts", "part", "answer"),
    [
        (128, b"\r\n", "128"),
        (129, b"\r\n", "413"),
        (128, b"a:\r\nb:\r\n\r\n", "128"),
        (1, b"a:\r\n" * 256 + b"\r\n", "1"),
        (1, b"a:\r\n" * 257 + b"\r\n", "413"),
    ],
)
def test_parts_and_their_headers_are_bounded_in_number(parts: int, part: bytes, answer: str) -> None:
    client = Server(processors=[count]).connect()
    offsets = " ".join(str(len(part) * number) for number in range(parts))
    client.send(f"LHTTP/1.0 count\r\nmultipart:{offsets}\r\n\r\n{(part * parts).decode()}")
    (message,) = client.take()
    assert message.headers.get("status", message.text) == answer


def test_parts_are_made_when_they_are_asked_for_and_once() -> None:
    seen: list[object] = []

    @processor("see")
    def see(request: Request) -> None:
        seen.extend((request.parts, request.parts))
        request.parts = ()
        seen.append(request.parts)

    Server(processors=[see]).connect().send("LHTTP/1.0 see\r\nmultipart:0 3\r\n\r\n\r\nxa:b\r\n\r\n")
    assert seen[0] == (Part(body=b"x"), Part(Headers([("a", "b")])))
    assert seen[1] is seen[0]
    assert seen[2] == ()
