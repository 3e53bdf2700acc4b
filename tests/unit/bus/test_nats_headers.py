"""Headers of NATS messages, and the commands that publish messages, beside those of nats-py."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from lhttp_tx.bus.nats.headers import BINARY_HEAD, binary_of, is_stored, publish_commands, read_head

clients = pytest.importorskip("nats.aio.client")
commands = pytest.importorskip("nats.protocol.command")

NAMES = st.text("abcXYZ-0", min_size=1, max_size=9).map(str.encode)
VALUES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=9).map(str.encode)
LINES = st.lists(st.tuples(NAMES, st.sampled_from([b":", b": ", b":\t "]), VALUES).map(b"".join), max_size=6)


def read_by_nats_py(head: bytes) -> dict[str, str]:
    reading = clients.Client()._process_headers(head)
    with pytest.raises(StopIteration) as ended:
        reading.send(None)
    return ended.value.value or {}


@given(LINES)
@example([b"Nats-Sequence: 5", b"Nats-Subject: a", b"Nats-Sequence: 6"])
def test_headers_are_read_as_nats_py_reads_them(lines: list[bytes]) -> None:
    head = b"\r\n".join([b"NATS/1.0", *lines, b"", b""])
    assert {name: value.strip() for name, value in read_head(head).items()} == {
        name: value.strip() for name, value in read_by_nats_py(head).items()
    }


@pytest.mark.parametrize("line", [b" 503", b" 404 No Messages", b" 204 EOB", b" 100 Idle Heartbeat", b" x", b""])
def test_a_status_is_read_as_nats_py_reads_it(line: bytes) -> None:
    head = b"NATS/1.0" + line + b"\r\n\r\n"
    assert read_head(head).get("Status") == read_by_nats_py(head).get("Status")


def test_no_headers_are_none() -> None:
    assert read_head(None) == {}


@given(st.binary(max_size=50))
def test_any_bytes_are_read_as_some_headers(head: bytes) -> None:
    assert all(isinstance(name, str) for name in read_head(head))


@pytest.mark.parametrize(
    ("head", "binary"),
    [
        (BINARY_HEAD, True),
        (b"NATS/1.0\r\nLhttp-Frame:binary\r\n\r\n", True),
        (b"NATS/1.0\r\nother: x\r\nLhttp-Frame: binary\r\n\r\n", True),
        (b"NATS/1.0\r\nLhttp-Frame: text\r\n\r\n", False),
        (b"NATS/1.0\r\nother: Lhttp-Frame: binary\r\n\r\n", False),
        (b"NATS/1.0\r\n\r\n", False),
    ],
)
def test_a_header_says_whether_a_publication_is_binary(head: bytes, binary: bool) -> None:
    assert binary_of(head) is binary


def test_a_stored_publication_is_known_by_its_number() -> None:
    assert is_stored(b"NATS/1.0\r\nNats-Stream: S\r\nNats-Sequence: 7\r\n\r\n")
    assert not is_stored(BINARY_HEAD)


@given(st.lists(st.binary(max_size=20), max_size=4), st.sampled_from(["", "_INBOX.a"]), st.booleans())
def test_publications_are_written_as_nats_py_writes_them(payloads: list[bytes], reply: str, binary: bool) -> None:
    head = BINARY_HEAD if binary else b""
    expected = [
        commands.hpub_cmd("r\u00f6om", reply, bytearray(head), payload)
        if binary
        else commands.pub_cmd("r\u00f6om", reply, payload)
        for payload in payloads
    ]
    written = publish_commands(f"r\u00f6om {reply}".strip().encode(), head, payloads)
    assert written == b"".join(each.replace(b"  ", b" ", 1) for each in expected)
