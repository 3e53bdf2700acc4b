"""lhttp_tx.codec.multipart: parts by offset."""

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st
from line_counter import count_lines

from lhttp_tx.codec.headers import Headers
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.codec.multipart import Part, check_parts, check_split, join_parts, parse_offsets, split_parts
from lhttp_tx.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError

parts = st.builds(
    Part,
    st.lists(st.tuples(st.text("abcXYZ-09", min_size=1, max_size=8), st.text("aé€:.", max_size=8)), max_size=3).map(
        Headers
    ),
    st.binary(max_size=30) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"k:v\r\n\r\nx"]),
)


@given(st.lists(parts, min_size=1, max_size=5))
def test_joined_parts_come_apart_again(given_parts: list[Part]) -> None:
    value, body = join_parts(given_parts)
    message = parse(Message("upload", [("multipart", value)], body, binary=True).raw, binary=True)
    assert list(split_parts(parse_offsets(message.headers.get("multipart", "")), message.body)) == given_parts


@given(st.lists(parts, min_size=1, max_size=3), st.data())
def test_splitting_at_wrong_offsets_raises_nothing_but_its_own_errors(
    given_parts: list[Part], data: st.DataObject
) -> None:
    _, body = join_parts(given_parts)
    offsets = sorted({0, *data.draw(st.lists(st.integers(1, len(body) + 2), max_size=3))})
    try:
        found = split_parts(tuple(offsets), body)
    except RemoteProtocolError as error:
        assert error.status == 400
        assert error.reason.isprintable()
    else:
        assert len(found) == len(offsets)
        assert split_parts(parse_offsets(join_parts(found)[0]), join_parts(found)[1]) == found


@given(st.text(st.sampled_from("0123456789 \t-+.,_x\r\né１٠²"), max_size=12) | st.text(max_size=8))
def test_offsets_are_strictly_rising_from_0_or_refused(value: str) -> None:
    try:
        offsets = parse_offsets(value)
    except RemoteProtocolError as error:
        assert error.reason.isprintable()
        return
    assert offsets[0] == 0
    assert all(one < other for one, other in pairwise(offsets))
    assert [int(word) for word in value.split()] == list(offsets)


@pytest.mark.parametrize(
    ("value", "expected"), [("0", (0,)), ("0 14", (0, 14)), (" 0\t1  2 ", (0, 1, 2)), ("0 007", (0, 7))]
)
def test_offsets_are_decimal_and_separated_by_blanks(value: str, expected: tuple[int, ...]) -> None:
    assert parse_offsets(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "x",
        "-0",
        "+0",
        "0x0",
        "0.0",
        "0,1",
        "0 1_0",
        "0 １",
        "٠",
        "0 ²",
        "0\n1",
        "0 12345678901",
        "1",
        "0 0",
        "0 2 1",
    ],
)
def test_malformed_offsets_are_refused(value: str) -> None:
    with pytest.raises(RemoteProtocolError, match="multipart"):
        parse_offsets(value)


@pytest.mark.parametrize(("offsets", "body"), [((0,), b""), ((0, 5), b"k:v\r\n"), ((0, 9), b"\r\n")])
def test_offset_outside_the_body_is_refused(offsets: tuple[int, ...], body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=f"offset {offsets[-1]} is not inside the body of {len(body)} bytes"):
        split_parts(offsets, body)


@pytest.mark.parametrize(
    "body", [b"x", b"k:v\r\n", b"k:v", b"\n\nx", b"k\r\n\r\n", b"a b:v\r\n\r\n", b"k:\x00\r\n\r\n", b"k:\xff\r\n\r\n"]
)
def test_malformed_part_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        split_parts((0,), body)


def test_part_of_a_blank_line_alone_is_empty() -> None:
    assert split_parts((0, 2), b"\r\n\r\n") == (Part(), Part())


def test_part_is_read_up_to_the_next_offset_alone() -> None:
    assert split_parts((0, 14), b"k1:v1\r\n\r\nbody1k2:v2\r\n\r\nbody2") == (
        Part(Headers([("k1", "v1")]), b"body1"),
        Part(Headers([("k2", "v2")]), b"body2"),
    )


def test_no_parts_cannot_be_joined() -> None:
    with pytest.raises(LocalProtocolError, match="at least one part"):
        join_parts([])


@pytest.mark.parametrize("pair", [("a b", "1"), ("a:", "1"), ("", "1"), ("h", " 1"), ("h", "1\r\nk:2"), ("h", "\x00")])
def test_part_that_would_not_parse_back_the_same_is_not_joined(pair: tuple[str, str]) -> None:
    with pytest.raises(LocalProtocolError):
        join_parts([Part(Headers([pair]), b"x")])


def test_many_offsets_take_no_more_work_than_few() -> None:
    parse_offsets.cache_clear()
    few, many = "0 2", " ".join(str(2 * number) for number in range(1_500))
    assert count_lines(lambda: parse_offsets(many)) == count_lines(lambda: parse_offsets(few))
    assert parse_offsets(many) == tuple(range(0, 3_000, 2))


def test_headers_of_all_parts_are_bounded_together() -> None:
    body = b"a:\r\nb:\r\n\r\nx" + b"c:\r\n\r\ny"
    assert [len(part.headers) for part in split_parts((0, 11), body, 3)] == [2, 1]
    with pytest.raises(MessageTooLarge, match="more than 2 headers"):
        split_parts((0, 11), body, 2)


@pytest.mark.parametrize(("part", "most"), [(b"\r\n", 60), (b"\r\nx", 60), (b"a:b\r\n\r\n", 8 * 128)])
def test_tiny_parts_are_checked_without_making_them(part: bytes, most: int) -> None:
    offsets = " ".join(str(len(part) * number) for number in range(128))
    message = Message("chat", {"multipart": offsets}, part * 128)
    parse_offsets.cache_clear()
    assert count_lines(lambda: check_parts(message)) < most


@pytest.mark.parametrize(
    ("offsets", "body", "reason"),
    [
        ((0, 2), b"\r\n\r\n", ""),
        ((0, 1), b"\r\nx", "no blank line"),
        ((0, 3), b"\r\nxa:b\r\n\r\n", ""),
        ((0, 3), b"\r\nxa:b\r\n\r", "no blank line"),
        ((0, 3), b"\r\nx\r\r\n\r\n", "CR"),
        ((0, 3), b"\r\nx\xff:\r\n\r\n", "header"),
        ((0, 9), b"\r\nx", "not inside"),
    ],
)
def test_parts_are_refused_whether_or_not_they_are_made(offsets: tuple[int, ...], body: bytes, reason: str) -> None:
    for check in (check_split, split_parts):
        if reason:
            with pytest.raises(RemoteProtocolError, match=reason):
                check(offsets, body)
        else:
            check(offsets, body)
