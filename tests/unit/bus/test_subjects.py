"""Channels as NATS subjects: one-to-one, never a wildcard, never outside the prefix, never too long."""

import re

import pytest
from hypothesis import example, given, strategies as st

from lhttp_tx.bus.nats.servers import NATSServers, check_server, shown_server
from lhttp_tx.bus.nats.subjects import MAX_PREFIX_SIZE, channel_of, check_prefix, subject_of
from lhttp_tx.codec.channels import MAX_CHANNEL_SIZE, check_channel
from lhttp_tx.errors import RemoteProtocolError

PREFIXES = st.sampled_from(["", "lhttp.", "a.b.c.", "é."])
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.text("a.*>$_% \t\x0b\0", min_size=1)
CONTROL_LINE = 4096
"""The longest line that a NATS server takes by default, in bytes."""


def is_channel(name: str) -> bool:
    try:
        return bool(check_channel(name))
    except RemoteProtocolError:
        return False


@given(NAMES, PREFIXES)
@example("*", "")
@example(">", "")
@example("a.*.b", "lhttp.")
@example("$JS.API.x", "")
@example("_INBOX.x", "")
@example("a..b", "lhttp.")
@example(".a.", "")
@example("a\r\nPUB b 0\r\n", "")
@example("\x0b\x0c\0", "")
def test_a_subject_is_one_that_nats_takes_literally_and_leads_back(name: str, prefix: str) -> None:
    subject = subject_of(name, prefix)
    assert channel_of(subject, prefix) == name
    assert subject.startswith(prefix)
    tokens = subject.split(".")
    assert all(tokens)
    assert not re.search(r"[*>\s\x00-\x20\x7f-\x9f]", subject)
    assert not subject.startswith(("$", "_INBOX"))


@given(NAMES, NAMES, PREFIXES)
def test_different_channels_have_different_subjects(one: str, other: str, prefix: str) -> None:
    assert (subject_of(one, prefix) == subject_of(other, prefix)) == (one == other)


@given(st.text(max_size=60), PREFIXES)
def test_every_text_is_the_subject_of_one_channel_or_of_none(subject: str, prefix: str) -> None:
    channel = channel_of(subject, prefix)
    assert channel is None or subject_of(channel, prefix) == subject


@given(st.text(min_size=1, max_size=MAX_CHANNEL_SIZE).filter(is_channel))
@example("*x" * 127)
@example("é" * 127)
def test_the_subject_of_a_valid_channel_fits_into_a_control_line(name: str) -> None:
    prefix = "p" * (MAX_PREFIX_SIZE - 1) + "."
    line = b"HPUB " + subject_of(name, check_prefix(prefix)).encode() + b" 1048576 1048576\r\n"
    assert len(line) < CONTROL_LINE


@pytest.mark.parametrize(
    "name", ["room", "room.7", "é.日本", "with:colon", "a,b;c", "UPPER_and-lower", "a_INBOX", "a$b"]
)
def test_ordinary_names_stay_readable(name: str) -> None:
    assert subject_of(name, "lhttp.") == f"lhttp.{name}"


@pytest.mark.parametrize("prefix", ["", "lhttp.", "a.b.", "é."])
def test_a_prefix_is_nothing_or_whole_tokens(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "prefix",
    ["lhttp", ".", "a..", ".a.", "*.", ">.", "a*.", "$SYS.", "_INBOX.", "a b.", "a\n.", "a%.", "p" * 255 + "."],
)
def test_other_prefixes_are_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="end with a dot"):
        check_prefix(prefix)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://example.com", "nats://example.com:4222"),
        ("tls://me:secret@example.com:1/", "tls://example.com:1"),
        ("nats://token@[::1]:4222", "nats://[::1]:4222"),
    ],
)
def test_a_server_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_server(check_server(url)) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:4222",
        "http://a",
        "nats://",
        "nats://a:x",
        "nats://a:0",
        "nats://a:70000",
        "nats://a/b",
        "ws://a",
        "wss://a",
    ],
)
def test_what_names_no_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a NATS server"):
        check_server(url)


def test_an_error_about_a_server_holds_no_password() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is what is tested
        check_server("http://me:secret@example.com")
    assert "secret" not in str(caught.value)


def test_settings_show_no_secret() -> None:
    assert repr(NATSServers(("nats://me:secret@a",), password="hidden")) == "<NATSServers nats://a:4222>"


def test_settings_name_a_server() -> None:
    with pytest.raises(ValueError, match="at least one"):
        NATSServers(())
