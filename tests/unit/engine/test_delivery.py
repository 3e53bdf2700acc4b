"""Deliveries: each encoding is asked once, whoever else asks in between."""

import pytest

from lhttp_tx.engine.delivery import Delivery, parse_payloads


class Counting:
    def __init__(self) -> None:
        self.asked = 0

    def encode(self, payloads: list[bytes], binary: bool) -> list[bytes]:
        self.asked += 1
        return payloads


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_encoding_is_made_once(count: int) -> None:
    encodings = [Counting() for _ in range(count)]
    delivery = Delivery("room", [b"1", b"2"], False)
    for _ in range(10):
        for encoding in encodings:
            assert delivery.encoded(encoding) is delivery.payloads
    assert [encoding.asked for encoding in encodings] == [1] * count
    assert delivery.encoding is encodings[0]


def test_what_is_made_may_be_nothing() -> None:
    class Nothing(Counting):
        def encode(self, payloads: list[bytes], binary: bool) -> list[bytes]:
            super().encode(payloads, binary)
            return []

    first, second = Nothing(), Nothing()
    delivery = Delivery("room", [b"1"], True)
    assert [delivery.encoded(found) for found in (first, second, first, second)] == [[]] * 4
    assert (first.asked, second.asked) == (1, 1)


def test_what_is_no_message_is_left_out() -> None:
    found = parse_payloads([b"LHTTP/1.0 a\r\n\r\n", b"nothing", b"LHTTP/1.0 b\r\n\r\n"], False)
    assert [message.command for message in found] == ["a", "b"]


def test_a_delivery_says_where_it_goes() -> None:
    assert (repr(Delivery("room", [b"1"], False)), len(Delivery("", [b"1", b"2"], False))) == (
        "<Delivery of 1 to room>",
        2,
    )
