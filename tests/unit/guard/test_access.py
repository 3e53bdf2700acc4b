"""lhttp_tx.guard.access: Host, Origin and the publishing door."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.errors import Refused
from lhttp_tx.guard.access import AccessPolicy, host_name, is_loopback, origin_name, server_name

TOKEN = b"a-secret-of-16-bytes"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("chat.example", "chat.example"),
        ("chat.example:8081", "chat.example"),
        ("CHAT.Example:8081", "chat.example"),
        ("chat.example.", "chat.example"),
        ("chat.example.:80", "chat.example"),
        ("localhost", "localhost"),
        ("127.0.0.1:8081", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::1]:8081", "::1"),
        (" chat.example ", "chat.example"),
    ],
)
def test_host_is_read_without_port_and_brackets(value: str, name: str) -> None:
    assert host_name(value) == name


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        ".",
        "..",
        ":80",
        "a:b",
        "a:80:90",
        "a:99999",
        "a:-1",
        "[::1",
        "::1]",
        "a/b",
        "a?b",
        "a#b",
        "u@a",
        "u:p@a",
        "@a",
    ],
)
def test_malformed_host_has_no_name(value: str) -> None:
    assert host_name(value) is None


@given(st.text(st.sampled_from("a.:[]/@?#\\%0é。\t \x00") | st.characters(), max_size=10))
def test_reading_a_host_never_raises(value: str) -> None:
    assert host_name(value) != ""


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_names(name: str) -> None:
    assert is_loopback(name)


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "localhost.example",
        "evil.localhost",
        "127.1",
        "2130706433",
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "::ffff:8.8.8.8",
    ],
)
def test_other_names_are_not_loopback(name: str | None) -> None:
    assert not is_loopback(name)


# Host


def status(check: Any, *args: Any, **kwargs: Any) -> int | None:
    try:
        check(*args, **kwargs)
    except Refused as error:
        return error.status
    return None


@pytest.mark.parametrize("host", ["chat.example", "localhost:8081", "10.0.0.1", "[::1]:80"])
def test_any_host_is_answered_by_default(host: str) -> None:
    assert status(AccessPolicy().check_host, host) is None


@pytest.mark.parametrize("host", [None, "", "a/b", "u@a", "a:b"])
@pytest.mark.parametrize(
    "policy", [AccessPolicy(), AccessPolicy(loopback_only=True), AccessPolicy(server_names=frozenset({"a"}))]
)
def test_missing_or_malformed_host_is_400(policy: AccessPolicy, host: str | None) -> None:
    assert status(policy.check_host, host) == 400


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:8081", None),
        ("LOCALHOST", None),
        ("127.0.0.1:8081", None),
        ("[::1]:8081", None),
        ("rebound.example:8081", 403),
        ("localhost.example", 403),
        ("0.0.0.0:8081", 403),
        ("10.0.0.1", 403),
    ],
)
def test_server_on_loopback_alone_answers_to_loopback_names(host: str, expected: int | None) -> None:
    assert status(AccessPolicy(loopback_only=True).check_host, host) == expected


@pytest.mark.parametrize("loopback_only", [False, True])
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("chat.example", None),
        ("Chat.Example:443", None),
        ("localhost", None),
        ("other.example", 403),
        ("x.chat.example", 403),
    ],
)
def test_listed_names_and_loopback_names_are_answered_and_no_others(
    host: str, expected: int | None, loopback_only: bool
) -> None:
    policy = AccessPolicy(server_names=frozenset({"chat.example"}), loopback_only=loopback_only)
    assert status(policy.check_host, host) == expected


# Origin


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        (None, "chat.example", None),
        ("http://chat.example", "chat.example", None),
        ("https://chat.example", "chat.example", None),
        ("http://chat.example:3000", "chat.example:8081", None),
        ("http://CHAT.example", "chat.EXAMPLE:8081", None),
        ("http://[::1]:3000", "[::1]:8081", None),
        ("http://evil.example", "chat.example", 403),
        ("http://chat.example.evil.example", "chat.example", 403),
        ("http://evil.example@chat.example", "chat.example", 403),
        ("http://chat.example/x", "chat.example", 403),
        ("http://localhost", "127.0.0.1", 403),
        ("null", "chat.example", 403),
        ("null", "null", 403),
        ("", "chat.example", 403),
        ("chat.example", "chat.example", 403),
        ("file://chat.example", "chat.example", 403),
        ("file://", "chat.example", 403),
        ("http://", "", 403),
        ("http://", None, 403),
        ("http://.", ".", 403),
        ("http://chat.example", None, 403),
        ("chrome-extension://abc", "abc", 403),
    ],
)
def test_origin_must_name_the_host(origin: str | None, host: str | None, expected: int | None) -> None:
    assert status(AccessPolicy().check_origin, origin, host) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://app.example", None),
        ("HTTPS://App.Example", None),
        ("http://app.example", 403),
        ("https://app.example:8443", 403),
        ("https://x.app.example", 403),
        ("null", 403),
        ("http://chat.example", None),
    ],
)
def test_listed_origin_is_let_in(origin: str, expected: int | None) -> None:
    policy = AccessPolicy(origins=frozenset({"https://app.example"}))
    assert status(policy.check_origin, origin, "chat.example") == expected


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "file://"])
def test_star_lets_every_origin_in(origin: str) -> None:
    assert status(AccessPolicy(origins=frozenset({"*"})).check_origin, origin, "chat.example") is None


def test_null_can_be_listed() -> None:
    assert status(AccessPolicy(origins=frozenset({"null"})).check_origin, "null", "chat.example") is None


# POST /publish

LOCAL: dict[str, Any] = {
    "peer": "127.0.0.1",
    "host": "127.0.0.1:8081",
    "origin": None,
    "fetch_site": None,
    "authorization": None,
    "header_names": ["host", "content-type", "content-length"],
}


def publish_status(policy: AccessPolicy, **changes: Any) -> int | None:
    return status(policy.check_publish, **{**LOCAL, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"peer": "::1", "host": "[::1]:8081"},
        {"peer": "::ffff:127.0.0.1"},
        {"host": "localhost:8081"},
        {"origin": "http://127.0.0.1:3000"},
        {"fetch_site": "same-origin"},
        {"fetch_site": "none"},
    ],
)
def test_program_on_this_machine_may_publish_without_a_token(changes: dict[str, Any]) -> None:
    assert publish_status(AccessPolicy(), **changes) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"peer": "10.0.0.1"},
        {"peer": "8.8.8.8"},
        {"peer": "2001:db8::1"},
        {"peer": None},
        {"host": "rebound.example:8081"},
        {"host": None},
        {"host": "u@localhost"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:8081"},
        {"fetch_site": "cross-site"},
        {"fetch_site": "same-site"},
        {"fetch_site": ""},
        {"authorization": "Bearer guess", "peer": "10.0.0.1"},
    ],
)
def test_others_may_not_publish_without_a_token(changes: dict[str, Any]) -> None:
    assert publish_status(AccessPolicy(), **changes) == 403


@pytest.mark.parametrize(
    "name",
    [
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "cf-connecting-ip",
        "true-client-ip",
    ],
)
def test_request_through_a_proxy_may_not_publish_without_a_token(name: str) -> None:
    assert publish_status(AccessPolicy(), header_names=["host", name]) == 403


def test_origins_that_may_connect_may_not_publish_without_a_token() -> None:
    policy = AccessPolicy(origins=frozenset({"*", "https://app.example"}))
    assert publish_status(policy, origin="https://app.example") == 403


def test_listed_server_name_may_be_the_host_of_a_local_program() -> None:
    policy = AccessPolicy(server_names=frozenset({"chat.example"}))
    assert publish_status(policy, host="chat.example:8081") is None
    assert publish_status(policy, host="rebound.example") == 403


@pytest.mark.parametrize(
    "authorization", ["Bearer a-secret-of-16-bytes", "bearer  a-secret-of-16-bytes ", "BEARER a-secret-of-16-bytes"]
)
def test_token_lets_anybody_publish(authorization: str) -> None:
    policy = AccessPolicy(publish_token=TOKEN)
    changes = {"peer": "8.8.8.8", "host": "chat.example", "origin": "http://evil.example", "header_names": ["via"]}
    assert publish_status(policy, authorization=authorization, **changes) is None


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer a-secret-of-16-byte",
        "Bearer a-secret-of-16-bytes!",
        "Bearer A-SECRET-OF-16-BYTES",
        "Bearer é",
        "Bearer \udcff",
        "Basic a-secret-of-16-bytes",
        "a-secret-of-16-bytes",
    ],
)
def test_missing_or_wrong_token_is_401_for_local_programs_too(authorization: str | None) -> None:
    assert publish_status(AccessPolicy(publish_token=TOKEN), authorization=authorization) == 401


def test_token_may_hold_any_bytes() -> None:
    assert publish_status(AccessPolicy(publish_token="é".encode() * 8), authorization="Bearer " + "é" * 8) is None


def test_token_is_not_shown() -> None:
    assert "secret" not in repr(AccessPolicy(publish_token=TOKEN))


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("*", "*"),
        ("null", "null"),
        ("file://", "file://"),
        ("https://App.Example/", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("app://.", "app://."),
    ],
)
def test_an_origin_is_listed_as_browsers_send_it(value: str, origin: str) -> None:
    assert origin_name(value) == origin


@pytest.mark.parametrize(
    "value",
    [
        *("", "app.example", "https://", "https://*.example", "https://app.example/chat", "https://a.example?x"),
        *(
            "https://user@app.example",
            "https://a.example,https://b.example",
            "https://a b",
            "https://b\xfccher.example",
        ),
    ],
)
def test_an_origin_that_no_browser_sends_is_not_listed(value: str) -> None:
    with pytest.raises(ValueError, match="such as https://"):
        origin_name(value)


@pytest.mark.parametrize("value", ["chat.example", "Chat.Example:8081", "[::1]", "127.0.0.1", "a_b.example", "x"])
def test_a_name_that_is_listed_is_that_of_a_host_header(value: str) -> None:
    assert server_name(value) == host_name(value)


@pytest.mark.parametrize("value", ["", "*", "*.example", "a.example, b.example", "a b", "http://a", "b\xfccher"])
def test_a_name_that_no_host_header_holds_is_not_listed(value: str) -> None:
    with pytest.raises(ValueError, match="write a host name, such as"):
        server_name(value)
