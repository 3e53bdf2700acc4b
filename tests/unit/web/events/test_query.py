"""lhttp_tx.web.events.query: what a client may ask for, and ids that come back."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st
from line_counter import count_lines

from lhttp_tx.codec.limits import Limits
from lhttp_tx.errors import Refused, RemoteProtocolError
from lhttp_tx.web.events.encoding import view_body, view_json
from lhttp_tx.web.events.query import Places, read_id, read_wish

NAMES = st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=2, max_size=5, unique=True)


@pytest.mark.parametrize(
    "query", ["channel=a&channel=b", "channel=a+b", "channel=a%20b&channel=a", "x=1&channel=a&channel=b&y"]
)
def test_channels_are_listed_once_each(query: str) -> None:
    wish = read_wish(query, None)
    assert (wish.channels, wish.view, wish.positions, wish.resumes) == (("a", "b"), view_json, {}, False)


def test_all_parameters() -> None:
    wish = read_wish("channel=a&data=body&last=20&ticket=abc", None)
    assert (wish.view, wish.last, wish.ticket) == (view_body, 20, "abc")
    assert [message.raw for message in wish.messages()] == [
        b"LHTTP/1.0 subscribe\r\nsubscribe:a\r\nlast:20\r\ngaps:tell\r\nreceipt:events0\r\n\r\n"
    ]


@pytest.mark.parametrize(("query", "told"), [
    ("", "name channels"),
    ("channel=", "name channels"),
    ("channel=a&data=xml", "data is one of"),
    ("channel=a&last=-1", "not a number"),
    ("channel=a&last=12345678", "not a number"),
    ("channel=a&last=%D9%A3", "not a number"),
    ("channel=a&last=1&since=e-1", "cannot be combined"),
    ("channel=a&since=e-1&since=e-2", "more than once"),
    ("channel=a&since=nonsense", "not a position"),
    ("channel=a&since=b%3De-1", "not a channel of the query"),
    ("channel=a&since=a%3De-1%20a%3De-2", "named twice"),
    ("channel=a&since=e-99999999999999999999", "not a position"),
    ("channel=%ff", "not UTF-8"),
])  # fmt: skip
def test_what_is_refused(query: str, told: str) -> None:
    with pytest.raises(Refused, match=told) as caught:
        read_wish(query, None)
    assert caught.value.status == 400


def test_more_channels_than_a_message_may_list_are_refused_before_anything_else() -> None:
    query = "channel=" + "+".join(f"a{number}" for number in range(129))
    with pytest.raises(Refused, match="more than 128 channels") as caught:
        read_wish(query + "&since=nonsense", None)
    assert caught.value.status == 429
    assert len(read_wish(query, None, Limits(list_length=129)).channels) == 129


def test_ids_cost_no_more_for_many_channels() -> None:
    positions = [b"e-%d" % number for number in range(100)]
    few, many = ({f"room.{number}": "e-1" for number in range(count)} for count in (2, 100))
    lines = [count_lines(partial(Places(known).ids, "room.1", positions)) for known in (few, many)]
    assert lines[1] == lines[0] < 3 * len(positions)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), st.just("e-1"), min_size=2))
def test_ids_say_where_the_stream_is(positions: dict[str, str]) -> None:
    places, channel = Places(positions), [*positions][-1]
    ids = places.ids(channel, [b"e-5", b"e-7"])
    assert [read_id(text.decode("ascii"), positions)[channel] for text in ids] == ["e-5", "e-7"]
    assert read_id(places.id().decode("ascii"), positions) == positions | {channel: "e-7"}


@pytest.mark.parametrize("name", ["a%0d%0asince:e-1", "a%00", "a%0a", "%0d", "a%7f"])
def test_a_channel_cannot_bring_headers_of_its_own(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read_wish(f"channel={name}", None).messages()


def test_the_last_event_id_replaces_since_and_last() -> None:
    wish = read_wish("channel=a&last=5", "e-7")
    assert (wish.positions, wish.last, wish.resumes) == ({"a": "e-7"}, 5, True)
    assert [message.headers.get("since") for message in wish.messages()] == ["e-7"]
    assert read_wish("channel=a&since=e-1", "e-7").positions == {"a": "e-7"}
    assert read_wish("channel=a&since=e-1", "").positions == {"a": "e-1"}


def test_channels_without_a_position_are_subscribed_apart() -> None:
    wish = read_wish("channel=a&channel=b&channel=c&last=5", "a=e-7 c=e-9")
    assert [message.raw.partition(b"gaps")[0] for message in wish.messages()] == [
        b"LHTTP/1.0 subscribe\r\nsubscribe:b\r\nlast:5\r\n",
        b"LHTTP/1.0 subscribe\r\nsubscribe:a c\r\nsince:a=e-7 c=e-9\r\n",
    ]


@given(NAMES)
def test_an_id_comes_back_as_it_was(names: list[str]) -> None:
    positions = {name: f"e1-{number}" for number, name in enumerate(names)}
    text = Places(positions).id().decode("ascii")
    assert text.isprintable()
    assert read_id(text, names) == positions
    query = "&".join(f"channel={quote(name, safe='')}" for name in names)
    assert read_wish(f"{query}&since={quote(text, safe='')}", None).positions == positions


@given(st.text() | st.text("a=b e-1%20\n"), st.sampled_from(["", "channel=a&channel=b", "channel=a&since=a%3De-1"]))
def test_a_forged_id_is_refused_and_nothing_worse(text: str, query: str) -> None:
    try:
        read_wish(query, text).messages()
    except (Refused, RemoteProtocolError) as error:
        assert error.status == 400
