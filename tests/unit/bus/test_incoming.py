"""The parser of what NATS sends, beside that of nats-py, which is the judge."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.bus.nats.incoming import BadStream, Incoming, Run
from lhttp_tx.bus.nats.origins import Origins

parsers = pytest.importorskip("nats.protocol.parser")

OURS = {b"1": "one", b"2": "two", b"30": "thirty"}


class Taken(NamedTuple):
    """One message."""

    number: bytes
    subject: str
    payload: bytes
    head: bytes | None


class Judge:
    """What nats-py's parser tells its client."""

    def __init__(self, data: bytes) -> None:
        self.messages: list[Taken] = []
        self.rest: list[Any] = []
        parsing = parsers.Parser(self).parse(data)
        with pytest.raises(StopIteration):
            parsing.send(None)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        number = b"%d" % sid
        if number in OURS:
            self.messages.append(Taken(number, subject.decode(), data, headers))
        else:
            self.rest.append((sid, subject, reply, data, headers))

    async def _process_err(self, error: str) -> None:
        self.rest.append(error)

    async def _process_ping(self) -> None:
        self.rest.append("ping")

    async def _process_pong(self) -> None:
        self.rest.append("pong")

    async def _process_info(self, info: Any) -> None:
        self.rest.append(info)


def flat(runs: list[Run[str]]) -> list[Taken]:
    numbers = {owner: number for number, owner in OURS.items()}
    return [
        Taken(numbers[run.owner], run.subject, payload, head)
        for run in runs
        for payload, head in zip(run.payloads, run.heads or [None] * len(run.payloads), strict=True)
    ]


def message(number: int, payload: bytes, *, subject: str = "room", reply: str = "", head: bytes | None = None) -> bytes:
    words = [subject, str(number), *([reply] if reply else [])]
    if head is None:
        return f"MSG {' '.join(words)} {len(payload)}\r\n".encode() + payload + b"\r\n"
    line = f"HMSG {' '.join(words)} {len(head)} {len(head) + len(payload)}\r\n"
    return line.encode() + head + payload + b"\r\n"


PAYLOADS = st.binary(max_size=60) | st.lists(
    st.sampled_from(
        [b"\r\n", b"\r", b"\n", b"MSG room 1 3\r\nabc\r\n", b"HMSG room 1 3 5\r\n", b"PING\r\n", b"x" * 40]
    ),
    max_size=4,
).map(b"".join)

HEADS = st.sampled_from(
    [b"NATS/1.0\r\nLhttp-Frame: binary\r\n\r\n", b"NATS/1.0 503\r\n\r\n", b"NATS/1.0\r\na: b\r\nMSG: x 1 3\r\n\r\n"]
)

BLANKS = st.sampled_from([" ", " ", " ", "\t", "  ", " \t "])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    words = [
        draw(st.sampled_from(["room", "a.b.c", "r\u00f6om", "_INBOX.x.1"])),
        draw(st.sampled_from(["1", "2", "30", "3", "77"])),
        *draw(st.sampled_from([[], [], ["_INBOX.answer"], ["5"]])),
    ]
    head = draw(st.none() | HEADS)
    payload = draw(PAYLOADS)
    if head is not None:
        words.append(str(len(head)))
    words.append(str(len(payload) + len(head or b"")))
    line = "MSG" if head is None else "HMSG"
    for word in words:
        line += draw(BLANKS) + word
    return line.encode() + b"\r\n" + (head or b"") + payload + b"\r\n"


LINES = st.sampled_from(
    [b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Slow Consumer'\r\n", b'INFO {"a": "MSG room 1 0"}\r\n']
)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(stream) + 1) for cut in cuts} | {len(stream)})
    return [stream[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@given(st.lists(messages() | LINES, max_size=12).map(b"".join), st.lists(st.integers(0, 5_000), max_size=12))
def test_however_a_stream_is_cut_it_says_what_nats_py_reads_in_it(stream: bytes, cuts: list[int]) -> None:
    incoming = Incoming(OURS)
    taken: list[Taken] = []
    rest = b""
    for piece in pieces(stream, cuts):
        runs, left = incoming.feed(piece)
        taken += flat(runs)
        rest += left
    judge = Judge(stream)
    assert taken == judge.messages
    assert Judge(rest).rest == judge.rest and not Judge(rest).messages


@given(
    st.binary(max_size=300) | st.lists(messages() | LINES | st.binary(max_size=9)).map(b"".join),
    st.lists(st.integers(0, 500)),
)
def test_what_is_not_taken_is_handed_on_byte_for_byte(stream: bytes, cuts: list[int]) -> None:
    nobody: dict[bytes, str] = {}
    incoming = Incoming(nobody)
    rest = b""
    try:
        for piece in pieces(stream, cuts):
            runs, left = incoming.feed(piece)
            assert runs == []
            rest += left
    except BadStream:
        return
    assert stream.startswith(rest)
    assert b"".join(incoming._held) == stream[len(rest) :]


def test_messages_that_follow_each_other_to_one_subject_are_one_run() -> None:
    stream = message(1, b"a") + message(1, b"bb") + message(2, b"c") + message(1, b"d") + b"PING\r\n" + message(1, b"e")
    runs, rest = Incoming(OURS).feed(stream)
    assert [(run.owner, run.payloads) for run in runs] == [
        ("one", [b"a", b"bb"]),
        ("two", [b"c"]),
        ("one", [b"d", b"e"]),
    ]
    assert rest == b"PING\r\n"


def test_subjects_of_one_wildcard_are_runs_of_their_own() -> None:
    stream = message(1, b"a", subject="x.a") + message(1, b"b", subject="x.b") + message(1, b"c", subject="x.b")
    runs, _ = Incoming(OURS).feed(stream)
    assert [(run.subject, run.payloads) for run in runs] == [("x.a", [b"a"]), ("x.b", [b"b", b"c"])]


def test_messages_with_headers_and_without_are_runs_of_their_own() -> None:
    stream = (
        message(1, b"a") + message(1, b"b", head=b"NATS/1.0\r\n\r\n") + message(1, b"c", head=b"NATS/1.0 1\r\n\r\n")
    )
    runs, _ = Incoming(OURS).feed(stream)
    assert [(run.heads, run.payloads) for run in runs] == [
        (None, [b"a"]),
        ([b"NATS/1.0\r\n\r\n", b"NATS/1.0 1\r\n\r\n"], [b"b", b"c"]),
    ]


def test_a_subscription_that_has_gone_is_handed_on_from_then_on() -> None:
    owners = dict(OURS)
    incoming = Incoming(owners)
    assert incoming.feed(message(1, b"a"))[1] == b""
    del owners[b"1"]
    incoming.forget()
    assert incoming.feed(message(1, b"a")) == ([], message(1, b"a"))


def test_a_message_that_comes_in_pieces_is_held_as_they_came_until_it_is_whole() -> None:
    stream = message(1, b"x" * 1_000_000)
    incoming = Incoming(OURS)
    for begin in range(0, len(stream) - 1, 1_000):
        assert incoming.feed(stream[begin : min(begin + 1_000, len(stream) - 1)]) == ([], b"")
    assert len(incoming._held) > 1_000  # joined once, at the end, and not for each piece
    (run,), rest = incoming.feed(stream[-1:])
    assert run.payloads == [b"x" * 1_000_000] and rest == b"" and incoming._held == []


@pytest.mark.parametrize("number", [1, 3])
def test_a_message_that_is_too_large_is_not_waited_for(number: int) -> None:
    incoming = Incoming(OURS, max_size=100)
    assert incoming.feed(message(number, b"x" * 100)[:-1]) == ([], b"")
    incoming = Incoming(OURS, max_size=100)
    with pytest.raises(BadStream, match="a message of 101 bytes"):
        incoming.feed(message(number, b"x" * 101)[:30])


def test_a_line_that_does_not_end_is_not_waited_for() -> None:
    incoming = Incoming(OURS, max_line=100)
    assert incoming.feed(b"INFO " + b"x" * 95) == ([], b"")
    with pytest.raises(BadStream, match="a line of more than 100 bytes"):
        incoming.feed(b"x")


def test_what_is_remembered_of_lines_is_bounded() -> None:
    incoming = Incoming(OURS)
    for number in range(10_000):
        (run,), _ = incoming.feed(message(1, b"x" * (number % 7), subject=f"room.{number}"))
        assert run.subject == f"room.{number}"
        assert len(incoming._known) <= 4_096 and len(incoming._targets) <= 4_096
    (run,), _ = incoming.feed(message(1, b"x", subject="y" * 4_000))
    assert run.subject == "y" * 4_000
    assert all(len(line) <= 512 for line in incoming._known)


@pytest.mark.parametrize(
    "line", [b"MSG room 1", b"MSG room 1 x", b"HMSG room 1 5", b"MSGroom 1 5", b" MSG room 1 5", b"MSG room 1 5 "]
)
def test_a_line_that_begins_no_message_is_nats_pys_to_judge(line: bytes) -> None:
    assert Incoming(OURS).feed(line + b"\r\n") == ([], line + b"\r\n")


# Marks


def marked(mark: bytes, *payloads: bytes, head: bytes | None = None) -> bytes:
    return b"".join(message(1, payload, reply=mark.decode(), head=head) for payload in payloads)


HEAD = b"NATS/1.0\r\na: b\r\n\r\n"


@pytest.mark.parametrize("head", [None, HEAD])
def test_what_a_link_brings_that_its_node_has_given_up_is_dropped(head: bytes | None) -> None:
    there = Origins()
    old, new = there.begin(), there.begin()
    incoming: Incoming[str] = Incoming(OURS, Origins().find)
    runs, rest = incoming.feed(
        marked(old, b"1", b"2", head=head)
        + marked(new, b"3", head=head)
        + marked(old, b"4", b"5", head=head)
        + b"PING\r\n"
        + marked(new, b"6", head=head)
        + message(1, b"7", head=head)
        + marked(old, b"8", head=head)
    )
    assert [taken.payload for taken in flat(runs)] == [b"1", b"2", b"3", b"6", b"7"]
    assert [taken.head for taken in flat(runs)] == [head] * 5
    assert rest == b"PING\r\n"
    assert incoming.feed(marked(old, b"9", head=head)) == ([], b"")


def test_a_nodes_own_publications_are_dropped() -> None:
    here = Origins()
    incoming: Incoming[str] = Incoming(OURS, here.find)
    assert incoming.feed(marked(here.begin(), b"1") + marked(here.begin(), b"2")) == ([], b"")


def test_publications_of_several_nodes_to_one_channel_make_one_run() -> None:
    marks = [Origins().begin() for _ in range(3)]
    incoming: Incoming[str] = Incoming(OURS, Origins().find)
    runs, _ = incoming.feed(b"".join(marked(mark, mark) for mark in marks * 3) + message(1, b"x", reply="_INBOX.a"))
    assert [run.payloads for run in runs] == [[*marks * 3, b"x"]]


def test_what_is_remembered_of_marks_is_bounded() -> None:
    incoming: Incoming[str] = Incoming(OURS, Origins().find)
    for _ in range(5_000):
        assert flat(incoming.feed(marked(Origins().begin(), b"x"))[0])
    for number in range(5_000):
        assert flat(incoming.feed(marked(b"_INBOX.%d" % number, b"x"))[0])
    assert len(incoming._known) <= 4_096 and len(incoming._targets) <= 4_097
