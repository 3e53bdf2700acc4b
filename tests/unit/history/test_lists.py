"""Publications to several channels, of which some have history."""

from __future__ import annotations

import pytest

from lhttp_tx.history.values import DEFAULT_RETENTION
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.testing import Server


def test_the_copy_in_a_channel_without_history_has_no_forged_offset() -> None:
    server = Server(history=["kept"])
    publisher, reader = server.connect(), server.connect()
    reader.send("LHTTP/1.0 x\r\nsubscribe:kept other\r\n\r\n")
    publisher.send("LHTTP/1.0 x\r\npublish:kept other\r\noffset:99\r\nAfter:98\r\noffset-of:other\r\n\r\nhello")
    assert [message.raw for message in reader.take()] == [
        b"LHTTP/1.0 x\r\noffset:1\r\nafter:0\r\noffset-of:kept\r\npublish:kept other\r\n\r\nhello",
        b"LHTTP/1.0 x\r\npublish:kept other\r\n\r\nhello",
    ]


def test_channels_without_history_get_every_byte() -> None:
    server = Server(history=["kept"])
    publisher, reader = server.connect(), server.connect()
    reader.send("LHTTP/1.0 x\r\nsubscribe:a b\r\n\r\n")
    message = "LHTTP/1.0 x\r\npublish:a b\r\noffset:99\r\nAfter:98\r\n\r\nhello"
    publisher.send(message)
    assert [found.raw.decode() for found in reader.take()] == [message, message]


@pytest.mark.parametrize("kept", ["rule", "pattern"])
def test_history_and_no_echo_do_not_go_together(kept: str) -> None:
    rule = Rule("room.*", echo=False, history=DEFAULT_RETENTION if kept == "rule" else None)
    with pytest.raises(ValueError, match=r"'room\.\*' has echo = false, which cannot be combined with history"):
        Server(rules=Rules([rule]), history=["room.a"] if kept == "pattern" else [])


def test_no_echo_goes_together_with_history_elsewhere() -> None:
    Server(rules=Rules([Rule("room.*", echo=False)]), history=["log.>"])
