"""lhttp_tx.codec.channels: which names are taken, and lists of them."""

import unicodedata

import pytest
from hypothesis import example, given, strategies as st
from line_counter import count_lines

from lhttp_tx.codec.channels import MAX_CHANNEL_SIZE, check_channel, check_wildcard, split_channels
from lhttp_tx.errors import RemoteProtocolError

# Long runs of what matters in names, and anything else now and then.
names = st.text(
    st.one_of(
        st.sampled_from("ab.*>$_- \t\r\n\x00\x7f\x85\x90\u00a0\u2028\u3000\u200bé日\ud800"),
        st.characters(),
    ),
    max_size=12,
)


def is_forbidden(name: str) -> bool:
    """Say again, in other words than the module, what the protocol document forbids."""
    if any(unicodedata.category(char) == "Cs" for char in name):
        return True
    if not 1 <= len(name.encode("utf-8")) <= 255:
        return True
    if any(unicodedata.category(char) in ("Cc", "Zs", "Zl", "Zp") for char in name):
        return True
    tokens = name.split(".")
    return name.startswith(("$", "_")) or "" in tokens or "*" in tokens or ">" in tokens


def outcome(name: str) -> int | None:
    try:
        assert check_channel(name) == name
    except RemoteProtocolError as error:
        return error.status
    return None


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "room.a",
        "A.b.C",
        "0",
        "-",
        "a_b",
        "a$b",
        "a.$b",
        "a._b",
        "a*",
        "*a",
        "a.>b",
        ">>",
        "**",
        "/x",
        "a:b",
        "é",
        "日本",
    ],
)
def test_name_is_taken(name: str) -> None:
    assert outcome(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".a",
        "a.",
        "a..b",
        "*",
        ">",
        "a.*",
        "*.a",
        "a.*.b",
        "a.>",
        ">.a",
        "a b",
        " a",
        "a ",
        "a\tb",
        "a\r\nb",
    ],
)
def test_malformed_name_is_refused_with_400(name: str) -> None:
    assert outcome(name) == 400


@pytest.mark.parametrize(
    "char", ["\x00", "\x1f", "\x7f", "\x80", "\x85", "\x9f", "\u00a0", "\u2028", "\u2029", "\u3000"]
)
def test_blank_or_control_character_is_refused(char: str) -> None:
    assert [outcome(name) for name in (char, f"a{char}", f"{char}a", f"é{char}b")] == [400] * 4


@pytest.mark.parametrize("name", ["$", "_", "$SYS", "$SYS.x", "_INBOX.x", "$JS.API.*", "_.a", "$a.>"])
def test_reserved_name_is_refused_with_403(name: str) -> None:
    assert outcome(name) == 403


def test_lone_surrogate_is_refused() -> None:
    assert outcome("a\ud800") == 400


@pytest.mark.parametrize("char", ["a", "é", "日", "\U0001f600"])
def test_size_counts_bytes_of_utf8(char: str) -> None:
    width = len(char.encode("utf-8"))
    fits = char * (MAX_CHANNEL_SIZE // width)
    assert outcome(fits) is None
    assert outcome(fits + char) == 400


def test_refusal_names_the_channel_in_ascii() -> None:
    with pytest.raises(RemoteProtocolError, match=r"^channel 'caf\\xe9\.\.x' has an empty token$"):
        check_channel("café..x")


@given(names)
@example("$")
@example("a.\u2028")
def test_exactly_the_forbidden_names_are_refused(name: str) -> None:
    assert (outcome(name) is not None) == is_forbidden(name)


@given(st.integers(240, 270), st.sampled_from("aé.日"))
def test_no_name_above_the_limit_is_taken(length: int, char: str) -> None:
    name = ("a" * length)[:-1] + char
    assert (outcome(name) is not None) == is_forbidden(name)


# Lists


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a"], ("a",)),
        (["a b c"], ("a", "b", "c")),
        (["c a b"], ("c", "a", "b")),
        ([" a \t b "], ("a", "b")),
        (["a b a", "b c"], ("a", "b", "c")),
        (["", "a"], ("a",)),
        (["a,b"], ("a,b",)),
    ],
)
def test_list_gives_each_channel_once_in_order(values: list[str], expected: tuple[str, ...]) -> None:
    assert split_channels(values) == expected


@pytest.mark.parametrize("values", [[], [""], [" "], ["\t"], ["", " "]])
def test_list_of_none_is_refused(values: list[str]) -> None:
    with pytest.raises(RemoteProtocolError, match="list of channels is empty") as caught:
        split_channels(values)
    assert caught.value.status == 400


def test_one_bad_name_refuses_the_list() -> None:
    with pytest.raises(RemoteProtocolError, match="wildcard"):
        split_channels(["a b", "c *"])


@pytest.mark.parametrize("separator", ["\u00a0", "\u3000", "\u2028", "\x0b", "\x0c", "\n"])
def test_only_blanks_and_tabs_separate(separator: str) -> None:
    with pytest.raises(RemoteProtocolError, match="blank or control character"):
        split_channels([f"a{separator}b"])


@given(st.lists(names, max_size=5))
def test_list_never_yields_a_forbidden_name(values: list[str]) -> None:
    try:
        channels = split_channels(values)
    except RemoteProtocolError:
        return
    assert channels
    assert len(set(channels)) == len(channels)
    assert not any(is_forbidden(channel) for channel in channels)


# Wildcard subscriptions


@pytest.mark.parametrize("name", ["*", ">", "a.*", "*.a", "a.>", "*.*.>", "a", "room.a"])
def test_wildcard_is_taken(name: str) -> None:
    assert check_wildcard(name) == name


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("a.>.b", 400, "channel 'a.>.b' has the wildcard > before its end"),
        ("a..*", 400, "channel 'a..*' has an empty token"),
        ("$a.*", 403, "channel '$a.*' is reserved for the server"),
        ("a b.*", 400, "channel 'a b.*' holds a blank or control character"),
        ("a" * 254 + ".*", 400, "channel name of 256 bytes is longer than 255"),
        ("", 400, "channel name is empty"),
    ],
)
def test_wildcard_that_is_no_name_otherwise_is_refused(name: str, status: int, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check_wildcard(name)
    assert (caught.value.status, caught.value.reason) == (status, reason)


# Work


def test_long_names_take_no_more_work_than_short_ones() -> None:
    short, characters, tokens = ("a.b", "a." + "x" * 250, ".".join("a" * 120))
    work = count_lines(lambda: check_channel(short))
    assert count_lines(lambda: check_channel(characters)) == work
    assert count_lines(lambda: check_channel(tokens)) == work
