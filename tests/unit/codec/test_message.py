"""lhttp_tx.codec.message: bytes to messages and back."""

from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from lhttp_tx.codec.headers import Headers
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Head, Message, parse, parse_head, split_head
from lhttp_tx.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError

VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
CONTROLS = "".join(map(chr, [*range(0x09), *range(0x0A, 0x20), 0x7F]))

commands = st.text(VISIBLE, min_size=1, max_size=64)
header_names = st.text(VISIBLE.replace(":", ""), min_size=1, max_size=20)
header_values = st.text(st.characters(codec="utf-8", exclude_characters=CONTROLS), max_size=30).map(
    lambda value: value.strip(" \t")
)
header_pairs = st.lists(st.tuples(header_names | st.sampled_from(["publish", "Receipt"]), header_values), max_size=8)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    binary = draw(st.booleans())
    body = draw(st.binary(max_size=60)) if binary else draw(st.text(st.characters(codec="utf-8"), max_size=40))
    return Message(draw(commands), draw(header_pairs), body, binary=binary)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A well-formed message with a few bytes put in, taken out or written over."""
    raw = draw(messages()).raw
    fragments = st.sampled_from(
        [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b":", b" ", b"\t", b"\x00", b"\xff", b"LHTTP/1.0 "]
    )
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = min(len(raw), start + draw(st.integers(0, 4)))
        raw = raw[:start] + draw(fragments | st.binary(max_size=3)) + raw[end:]
    return raw


def fields(message: Message) -> tuple[str, list[tuple[str, str]], bytes, bool]:
    return message.command, list(message.headers), message.body, message.binary


# Properties


@given(messages())
def test_what_is_built_parses_back_equal(message: Message) -> None:
    parsed = parse(message.raw, binary=message.binary)
    assert parsed == message
    assert hash(parsed) == hash(message)
    assert fields(parsed) == fields(message)


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda rest: b"LHTTP/1.0 c\r\n" + rest) | mutations())
@example(b"LHTTP/1.0 c\r\nh:\xed\xa0\x80\r\n\r\n")
def test_parsing_raises_nothing_but_its_own_errors(data: bytes) -> None:
    try:
        message = parse(data, binary=True)
    except RemoteProtocolError as error:
        assert error.status in (400, 413)
        assert error.reason.isprintable()
    else:
        assert message.raw == data


@given(mutations())
@example(b"LHTTP/1.0 c\r\nh: \t1 \r\n")
def test_what_parses_can_be_built_again(data: bytes) -> None:
    try:
        message = parse(data, binary=True)
    except RemoteProtocolError:
        return
    built = Message(message.command, message.headers, message.body, binary=True)
    assert fields(built) == fields(message)
    assert fields(parse(built.raw, binary=True)) == fields(message)


nasty = st.text(st.sampled_from("\r\n\t :\x00\x0b\x7f\x85\u00a0\u2028é\ud800aA1"), max_size=6)


@given(nasty, st.lists(st.tuples(nasty, nasty), max_size=3), st.binary(max_size=5) | nasty, st.booleans())
@example("c", [("h", " 1")], b"", False)
@example("c", [("h:", "1")], b"", False)
@example("c", [("h", "1\r\nk:2")], b"", False)
@example("a b", [], b"", False)
@example("c", [], b"\xff", False)
@example("c\u00a0", [], b"", False)
def test_building_refuses_what_would_not_parse_back_the_same(
    command: str, pairs: list[tuple[str, str]], body: bytes | str, binary: bool
) -> None:
    try:
        message = Message(command, pairs, body, binary=binary)
    except LocalProtocolError:
        return
    raw_body = body.encode("utf-8") if isinstance(body, str) else body
    if not binary:
        message.raw.decode("utf-8")
    assert fields(parse(message.raw, binary=binary)) == (command, pairs, raw_body, binary)


@given(messages())
def test_stripped_message_lacks_the_servers_headers_and_nothing_else(message: Message) -> None:
    message = message.replace(headers=[("Upstream", "x"), *message.headers, ("receipt", "1")])
    stripped = message.stripped()
    kept = [(name, value) for name, value in message.headers if name.lower() not in ("upstream", "receipt")]
    assert fields(stripped) == (message.command, kept, message.body, message.binary)
    assert fields(parse(stripped.raw, binary=stripped.binary)) == fields(stripped)
    assert stripped.stripped() is stripped


# Building


@pytest.mark.parametrize(
    ("arguments", "raw"),
    [
        (("c",), b"LHTTP/1.0 c\r\n\r\n"),
        (("c", [], "x"), b"LHTTP/1.0 c\r\n\r\nx"),
        (("c", [("h", "1"), ("h", "2")], b"x"), b"LHTTP/1.0 c\r\nh:1\r\nh:2\r\n\r\nx"),
        (("c", {"h": "1", "k": ""}, b""), b"LHTTP/1.0 c\r\nh:1\r\nk:\r\n\r\n"),
        (("c", Headers([("h", "é")]), "€"), "LHTTP/1.0 c\r\nh:é\r\n\r\n€".encode()),
        (("c", (pair for pair in [("h", "1")])), b"LHTTP/1.0 c\r\nh:1\r\n\r\n"),
    ],
)
def test_message_is_written_as_the_grammar_says(arguments: Any, raw: bytes) -> None:
    assert Message(*arguments).raw == raw


@pytest.mark.parametrize("command", ["", "a b", " a", "a\r\n", "é", "a\x00", "a\x7f", "c" * 65, "\ud800", "a\u00a0"])
def test_malformed_command_is_not_built(command: str) -> None:
    with pytest.raises(LocalProtocolError, match="command"):
        Message(command)


@pytest.mark.parametrize("name", ["", "a b", " a", "a ", "a:b", "a\r", "é", "a\x00", "\ud800"])
def test_malformed_header_name_is_not_built(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="header name"):
        Message("c", [(name, "1")])


@pytest.mark.parametrize(
    "value", [" a", "a ", "\ta", "a\t", "a\r\nb:c", "a\nb", "a\rb", "a\x00", "a\x1b", "a\x7f", "\ud800"]
)
def test_malformed_header_value_is_not_built(value: str) -> None:
    with pytest.raises(LocalProtocolError, match="value"):
        Message("c", [("h", value)])


def test_text_message_with_a_body_that_is_not_utf8_is_not_built() -> None:
    with pytest.raises(LocalProtocolError, match="body of a text message is not UTF-8 at byte 2"):
        Message("c", body=b"ab\xff")
    assert Message("c", body=b"ab\xff", binary=True).body == b"ab\xff"


def test_lone_surrogate_in_the_body_is_not_built() -> None:
    with pytest.raises(LocalProtocolError, match="body"):
        Message("c", body="\ud800", binary=True)


def test_replacing_nothing_gives_an_equal_message() -> None:
    message = Message("c", [("h", "1")], b"\xff", binary=True)
    assert message.replace() == message


@pytest.mark.parametrize(
    ("change", "raw"),
    [
        ({"command": "d"}, b"LHTTP/1.0 d\r\nh:1\r\n\r\nx"),
        ({"headers": [("k", "2")]}, b"LHTTP/1.0 c\r\nk:2\r\n\r\nx"),
        ({"headers": {}}, b"LHTTP/1.0 c\r\n\r\nx"),
        ({"body": "y"}, b"LHTTP/1.0 c\r\nh:1\r\n\r\ny"),
        ({"body": b""}, b"LHTTP/1.0 c\r\nh:1\r\n\r\n"),
        ({"binary": True}, b"LHTTP/1.0 c\r\nh:1\r\n\r\nx"),
    ],
)
def test_replacing_a_field_leaves_the_others(change: dict[str, Any], raw: bytes) -> None:
    replaced = Message("c", [("h", "1")], "x").replace(**change)
    assert replaced == parse(raw, binary="binary" in change)


def test_replacing_the_body_of_a_message_without_a_blank_line_adds_it() -> None:
    replaced = parse(b"LHTTP/1.0 c\r\nh:1\r\n").replace(body="x")
    assert replaced == parse(b"LHTTP/1.0 c\r\nh:1\r\n\r\nx")
    assert replaced.body == b"x"


@pytest.mark.parametrize("change", [{"body": b"\xff"}, {"body": "\ud800"}, {"command": ""}, {"headers": {"a b": ""}}])
def test_replacing_checks_like_building(change: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        Message("c", [("h", "1")], "x").replace(**change)


def test_turning_a_binary_message_into_text_checks_its_body() -> None:
    with pytest.raises(LocalProtocolError, match="not UTF-8"):
        Message("c", body=b"\xff", binary=True).replace(binary=False)


# Parsing


def test_kind_is_part_of_equality() -> None:
    assert parse(b"LHTTP/1.0 c\r\n") != parse(b"LHTTP/1.0 c\r\n", binary=True)
    assert parse(b"LHTTP/1.0 c\r\n") != b"LHTTP/1.0 c\r\n"


def test_text_is_the_body_decoded() -> None:
    assert parse("LHTTP/1.0 c\r\n\r\n€".encode()).text == "€"


def test_text_of_a_body_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="body is not UTF-8 at byte 1"):
        _ = parse(b"LHTTP/1.0 c\r\n\r\na\xff", binary=True).text


def test_long_values_are_cut_off_in_errors() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse(b"LHTTP/1.0 c\r\n" + b"x" * 500 + b"\r\n")
    assert caught.value.reason == f"header line '{'x' * 64}'... has no colon"


@pytest.mark.parametrize(
    ("limits", "fits", "passes"),
    [
        (Limits(message_size=20), b"LHTTP/1.0 c\r\n\r\n12345", b"LHTTP/1.0 c\r\n\r\n123456"),
        (Limits(head_size=18), b"LHTTP/1.0 c\r\nh:1\r\n\r\n" + b"x" * 90, b"LHTTP/1.0 c\r\nh:12\r\n\r\n"),
        (Limits(head_size=18), b"LHTTP/1.0 c\r\nh:1\r\n", b"LHTTP/1.0 c\r\nh:12\r\n"),
        (Limits(header_count=1), b"LHTTP/1.0 c\r\nh:1\r\n", b"LHTTP/1.0 c\r\nh:1\r\nh:1\r\n"),
    ],
)
def test_limit_is_the_last_that_fits(limits: Limits, fits: bytes, passes: bytes) -> None:
    assert parse(fits, limits=limits).raw == fits
    with pytest.raises(RemoteProtocolError) as caught:
        parse(passes, limits=limits)
    assert caught.value.status == 413


def test_sizes_count_bytes_not_characters() -> None:
    with pytest.raises(MessageTooLarge, match="message of 18 bytes is larger than 17"):
        parse("LHTTP/1.0 c\r\n\r\n€".encode(), limits=Limits(message_size=17))


def test_head_is_split_from_the_body_unparsed() -> None:
    assert split_head(b"nonsense\r\n\r\nbody\r\n\r\n") == b"nonsense\r\n"


# Heads


def head_of(*lines: str) -> Head:
    return parse_head("".join(line + "\r\n" for line in ("LHTTP/1.0 c", *lines)).encode())


def test_heads_with_equal_bytes_are_equal() -> None:
    assert head_of("h:1") == head_of("h:1")
    assert hash(head_of("h:1")) == hash(head_of("h:1"))
    assert head_of("h:1") != head_of("h: 1")


def test_channels_are_listed_from_all_repetitions() -> None:
    head = head_of("publish:a b", "subscribe:x", "PUBLISH:c a")
    assert head.channels("publish") == ("a", "b", "c")
    assert head.channels("subscribe") == ("x",)
    assert head.channels("unsubscribe") == ()


def test_malformed_channels_are_refused_each_time() -> None:
    head = head_of("publish:a..b")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="empty token"):
            head.channels("publish")


def test_head_with_nothing_to_strip_is_not_copied() -> None:
    head = head_of("publish:a")
    assert head.stripped() is head


def test_head_is_stripped_once() -> None:
    head = head_of("publish:a", "receipt:1")
    assert head.stripped() is head.stripped()


def test_representations_show_no_body() -> None:
    message = Message("c", [("h", "1")], "secret")
    assert repr(message) == "<Message c Headers([('h', '1')]) 26 bytes text>"
    assert repr(message.head) == "<Head c Headers([('h', '1')])>"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"command": None}, "command is a str, not None"),
        ({"command": b"chat"}, "command is a str, not b'chat'"),
        ({"command": "chat", "body": 5}, "body is bytes or a str, not 5"),
        ({"command": "chat", "body": 5, "binary": True}, "body is bytes or a str, not 5"),
        ({"command": "chat", "headers": {"a": 5}}, "header value is a str, not 5"),
        ({"command": "chat", "headers": {5: "a"}}, "header name is a str, not 5"),
    ],
)
def test_a_wrong_type_is_told(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        Message(**arguments)
