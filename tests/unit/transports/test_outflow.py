"""lhttp_tx.transports.outflow: which messages were not sent."""

from __future__ import annotations

from lhttp_tx.transports.outflow import Unread


def test_of_what_is_held_only_whole_messages_are_unsent() -> None:
    unread = Unread()
    for number in range(4):
        unread.add(100, [b"%d" % number], False, 100 * (number + 1))
    assert unread.take(250) == [(b"2", False), (b"3", False)]
    assert unread.take(250) == []


def test_what_has_left_is_forgotten() -> None:
    unread = Unread()
    for number in range(1000):
        unread.add(100, [b"%d" % number], False, 150)
    assert len(unread._kept) <= 2
    assert unread.take(100) == [(b"999", False)]


def test_bytes_that_are_no_message_count() -> None:
    unread = Unread()
    unread.add(50, [b"a"], False, 50)
    unread.add(3, [], False, 53)
    unread.add(50, [b"b", b"c"], True, 103)
    assert unread.take(60) == [(b"b", True), (b"c", True)]
