"""JSON on the server's side: what a message holds, and a reply."""

from __future__ import annotations

import pytest

from lhttp_tx import Message, Request, processor
from lhttp_tx.errors import LocalProtocolError, RemoteProtocolError
from lhttp_tx.testing import Server


@processor("add")
def add(request: Request) -> None:
    request.reply_json({"sum": sum(request.message.json())}, headers={"n": "1"})


@processor("plain")
def plain(request: Request) -> None:
    request.reply_json("é", command="other", headers={"Content-Type": "x/json"})


@processor("wrong")
def wrong(request: Request) -> None:
    request.reply_json(object())


@pytest.mark.parametrize("body", ["", "{", "[" * 100_000, b"\xff"])
def test_a_body_that_is_not_json_is_the_senders_mistake(body: bytes | str) -> None:
    with pytest.raises(RemoteProtocolError):
        Message("c", body=body, binary=True).json()


def test_a_value_comes_in_and_goes_out() -> None:
    client = Server(processors=[add, plain]).connect()
    client.send("LHTTP/1.0 add\r\nmultiplier:2\r\n\r\n[1,2]")
    client.send("LHTTP/1.0 plain\r\n\r\n")
    client.send("LHTTP/1.0 add\r\n\r\n{")
    first, second, third = client.received
    assert first.raw == b'LHTTP/1.0 add\r\nn:1\r\ncontent-type:application/json\r\n\r\n{"sum":3}'
    assert second.raw == 'LHTTP/1.0 other\r\nContent-Type:x/json\r\n\r\n"é"'.encode()
    assert (third.command, third.headers.get("status")) == ("error", "400")


def test_a_value_that_json_cannot_hold_is_the_programs_mistake(failures: list[BaseException]) -> None:
    client = Server(processors=[wrong]).connect()
    client.send("LHTTP/1.0 wrong\r\n\r\n")
    assert client.received[0].headers.get("status") == "500"
    assert [type(failure) for failure in failures] == [LocalProtocolError]
