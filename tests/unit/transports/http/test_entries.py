"""lhttp_tx.transports.http.entries: messages as JSON texts without line ends."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.codec.views import JSON
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.transports.http.entries import FORMS

NASTY = 'one\r\ntwo\n\nid: 7\n\u2028\u2029\x85\\"end'


def test_a_text_message_is_a_string() -> None:
    message = f"LHTTP/1.0 chat\r\npublish:ü\r\n\r\n{NASTY}"
    (entry,) = FORMS["lhttp"].encode([message.encode()], False)
    assert json.loads(entry) == message


def test_a_binary_message_is_an_object() -> None:
    (entry,) = FORMS["lhttp"].encode([b"LHTTP/1.0 chat\r\n\r\nhi"], True)
    assert b64decode(json.loads(entry)["base64"]) == b"LHTTP/1.0 chat\r\n\r\nhi"


@given(st.binary(max_size=60), st.booleans())
def test_every_message_comes_back(payload: bytes, binary: bool) -> None:
    (entry,) = FORMS["lhttp"].encode([payload], binary)
    found = json.loads(entry)
    assert (found.encode() if isinstance(found, str) else b64decode(found["base64"])) == payload


@pytest.mark.parametrize("form", FORMS)
def test_an_entry_is_one_line_for_everybody(form: str) -> None:
    message = f"LHTTP/1.0 chat\r\nname:ü\r\n\r\n{NASTY}".encode()
    (entry,) = FORMS[form].encode([message], False)
    assert len(entry.decode("utf-8").splitlines()) == 1


def test_views_are_shared_with_other_clients() -> None:
    delivery = Delivery("room", [b"LHTTP/1.0 chat\r\npublish:room\r\n\r\nhi"], False)
    entries = delivery.encoded(FORMS["lhttp.json"])
    assert entries == delivery.encoded(JSON)
    assert entries[0] is delivery.encoded(JSON)[0]


def test_what_is_no_message_has_no_view() -> None:
    assert FORMS["lhttp.json"].encode([b"nonsense"], False) == []
