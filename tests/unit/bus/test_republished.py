"""What streams write before what they publish again, and its order, in runs as one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.task import Clock

pytest.importorskip("nats")

from lhttp_tx.bus.nats.headers import read_head
from lhttp_tx.bus.nats.jetstream.order import Order
from lhttp_tx.bus.nats.jetstream.republished import REMOVED, News, read_news, stamp_order

STAMP = "2026-11-28T18:10:54.12345{}Z"


def head(
    offset: int, after: int, *, stream: str = "S", stamp: str = "", lines: tuple[str, ...] = (), order: bool = True
) -> bytes:
    """Return headers as a stream writes them."""
    last = [
        f"Nats-Sequence: {offset}",
        f"Nats-Time-Stamp: {stamp or STAMP.format(offset)}",
        f"Nats-Last-Sequence: {after}",
    ]
    if not order:
        last.reverse()
    found = ["NATS/1.0", *lines, f"Nats-Stream: {stream}", "Nats-Subject: s.room", *last, "", ""]
    return "\r\n".join(found).encode()


def flat(found: list[News]) -> list[tuple[Any, ...]]:
    return [
        (news.stream, news.binary, news.removed, *each)
        for news in found
        for each in zip(news.offsets, news.afters, news.stamps, news.payloads, strict=True)
    ]


LINES = st.sampled_from(
    [(), (), ("Lhttp-Frame: binary",), ("Nats-Msg-Id: room:1",), ("Nats-Msg-Id: room:2",), (f"{REMOVED}: 3",)]
)
HEADS = st.builds(
    head,
    st.integers(1, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    stream=st.sampled_from(["S", "S", "T"]),
    lines=LINES,
    order=st.sampled_from([True, True, True, False]),
)


@given(st.lists(st.tuples(HEADS, st.sampled_from([b"", b"text", "\u00e9".encode(), b"\xff"]))))
def test_what_is_read_in_a_run_is_what_is_read_one_by_one(messages: list[tuple[bytes, bytes]]) -> None:
    expected = []
    for each, payload in messages:
        headers = read_head(each)
        binary = headers.get("Lhttp-Frame") == "binary" or payload == b"\xff"
        removed = int(headers[REMOVED]) if REMOVED in headers else None
        numbers = int(headers["Nats-Sequence"]), int(headers["Nats-Last-Sequence"])
        expected.append((headers["Nats-Stream"], binary, removed, *numbers, headers["Nats-Time-Stamp"], payload))
    assert flat(read_news([each for each, _ in messages], [payload for _, payload in messages])) == expected


def test_publications_that_differ_in_numbers_times_and_ids_alone_are_together() -> None:
    heads = [head(5, 4), head(6, 5), head(7, 6, lines=("Nats-Msg-Id: a",)), head(100, 7, lines=("Nats-Msg-Id: b",))]
    (news,) = read_news(heads, [b"1", b"2", b"3", b"4"])
    assert (news.offsets, news.afters, news.payloads) == ([5, 6, 7, 100], [4, 5, 6, 7], [b"1", b"2", b"3", b"4"])


def test_numbers_that_are_none_are_0() -> None:
    (news,) = read_news([b"NATS/1.0\r\nNats-Stream: S\r\nNats-Sequence: x\r\n\r\n"], [b""])
    assert (news.offsets, news.afters, news.stamps) == ([0], [0], [""])


def test_times_are_compared_whatever_their_digits() -> None:
    stamps = ["2026-11-28T18:10:54Z", "2026-11-28T18:10:54.1Z", "2026-11-28T18:10:54.12Z", "2026-11-28T18:10:55Z"]
    assert sorted(stamps, key=stamp_order) == stamps


class Passed:
    """An Order, and what it has passed on."""

    def __init__(self, last: int) -> None:
        self.delivered: list[tuple[str, bytes, bool]] = []
        self.calls = 0
        self.queued = 0
        self.stream: Any = SimpleNamespace(name="S")
        parts: Any = SimpleNamespace(deliver=self._deliver, begin=lambda: None, end=lambda: None)
        self.order = Order(None, parts, lambda *_: None, lambda *_: last, clock=Clock())  # type: ignore[arg-type]
        self.order.queue = self._queue  # type: ignore[method-assign]

    def _deliver(self, channel: str, payloads: list[bytes], binary: bool) -> None:
        self.calls += 1
        self.delivered += [(channel, payload, binary) for payload in payloads]

    def _queue(self, *_: Any, **__: Any) -> None:
        self.queued += 1

    def take(self, heads: list[bytes], payloads: list[bytes]) -> None:
        for news in read_news(heads, payloads):
            assert self.order.take("room", self.stream, news)

    @property
    def state(self) -> Any:
        found = self.order.sequences.get("room")
        state = None if found is None else (found.last, found.top, found.held, found.stamp, found.gone, found.overflown)
        return state, self.delivered, self.queued, self.order.seen


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """Return what a stream may bring: chains with holes, repetitions, removals, and another life of the stream."""
    found = []
    offset, last = draw(st.integers(0, 3)), 0
    for _ in range(draw(st.integers(0, 12))):
        what = draw(st.sampled_from(["next"] * 8 + ["hole", "again", "removed", "anew"]))
        if what == "hole":
            last = offset = offset + draw(st.integers(1, 3))
        if what == "anew":
            offset = last = 0
        step = 0 if what == "again" else draw(st.sampled_from([1, 1, 1, 5]))
        offset, last = offset + step, last if what == "again" else offset
        lines = (
            (f"{REMOVED}: {last}",) if what == "removed" else draw(st.sampled_from([(), (), ("Lhttp-Frame: binary",)]))
        )
        payload = b"LHTTP/1.0 x\r\npublish:room\r\n\r\n%d" % draw(st.integers(0, 9))
        stamp = f"2026-11-28T18:10:{len(found) + 10}Z"
        found.append((head(offset, last, lines=lines, stamp=stamp), b"" if what == "removed" else payload))
    return found


@given(histories(), st.integers(-1, 3), st.lists(st.integers(0, 12), max_size=4))
def test_the_order_takes_runs_as_it_takes_one_by_one(
    messages: list[tuple[bytes, bytes]], last: int, cuts: list[int]
) -> None:
    one_by_one, in_runs = Passed(last), Passed(last)
    for each, payload in messages:
        one_by_one.take([each], [payload])
    ends = sorted({min(cut, len(messages)) for cut in cuts} | {len(messages)})
    for begin, end in zip([0, *ends], ends, strict=False):
        run = messages[begin:end]
        in_runs.take([each for each, _ in run], [payload for _, payload in run])
    assert in_runs.state == one_by_one.state


def test_a_run_that_follows_what_is_known_is_delivered_in_one_piece() -> None:
    passed = Passed(-1)
    offsets = [3, 4, 5, 9, 10]
    heads = [head(offset, after) for offset, after in zip(offsets, [2, *offsets], strict=False)]
    passed.take(heads, [b"LHTTP/1.0 x\r\npublish:room\r\n\r\n"] * 5)
    assert passed.calls == 1
    marks = [payload.split(b"\r\n")[1:3] for _, payload, _ in passed.delivered]
    assert marks == [
        [b"offset:%d" % offset, b"after:%d" % after] for offset, after in zip(offsets, [2, *offsets], strict=False)
    ]
