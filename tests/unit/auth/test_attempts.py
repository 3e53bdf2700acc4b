"""What a client says of who it is."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, strategies as st
from line_counter import count_lines

from lhttp_tx import Message
from lhttp_tx.auth.attempts import LoginAttempt, read_cookies, read_parameters


def with_authorization(value: str) -> LoginAttempt:
    return LoginAttempt("", "", headers={"authorization": value})


def basic(text: bytes) -> LoginAttempt:
    return with_authorization("Basic " + base64.b64encode(text).decode("ascii"))


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("", {}),
        ("a=1&b=%C3%A9+x&c=", {"a": "1", "b": "é x", "c": ""}),
        ("a=1&a=2", {"a": "2"}),
        ("a", {"a": ""}),
    ],
)
def test_parameters(query: str, parameters: dict[str, str]) -> None:
    assert read_parameters(query) == parameters


@given(st.text("ab=&+;%4C1é\U0001f600") | st.text())
def test_parameters_are_what_python_makes_of_a_query(query: str) -> None:
    assert read_parameters(query) == dict(parse_qsl(query, keep_blank_values=True))


def test_escapes_and_cookies_take_no_step_each() -> None:
    assert count_lines(lambda: read_parameters("a=" + "%41" * 2_700)) < 50
    assert count_lines(lambda: read_cookies("a=b;" * 4_000)) < 50


def test_cookies() -> None:
    assert read_cookies("") == {}
    assert read_cookies('a=1; b="2"; a=3;c = d=e ;;f') == {"a": "1", "b": "2", "c": "d=e"}


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc", "abc"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("", None),
    ],
)
def test_the_token_of_a_handshake(value: str, token: str | None) -> None:
    assert with_authorization(value).token == token


@pytest.mark.parametrize(
    ("text", "password"),
    [
        (b"alice:secret", ("alice", "secret")),
        (b"alice:a:b", ("alice", "a:b")),
        (b":", ("", "")),
        ("é:ü".encode(), ("é", "ü")),
        (b"alice", None),
        (b"\xff:\xff", None),
    ],
)
def test_the_password_of_a_handshake(text: bytes, password: Any) -> None:
    assert basic(text).password == password


@pytest.mark.parametrize("value", ["Basic !", "Basic YQ", "Basic", "Bearer YTpi"])
def test_what_is_no_password(value: str) -> None:
    assert with_authorization(value).password is None


def test_the_credentials_of_a_login_message() -> None:
    attempt = LoginAttempt("", "", message=Message("login", {"Token": "t", "User": "u", "Password": "p"}))
    assert (attempt.token, attempt.password) == ("t", ("u", "p"))


@pytest.mark.parametrize("headers", [{}, {"user": "u"}, {"password": "p"}])
def test_a_login_message_without_them(headers: dict[str, str]) -> None:
    attempt = LoginAttempt("", "", headers={"authorization": "Bearer t"}, message=Message("login", headers))
    assert (attempt.token, attempt.password) == (None, None)


def test_it_shows_no_secrets() -> None:
    attempt = LoginAttempt(
        "192.0.2.1",
        "c",
        "/secret",
        {"secret": "secret"},
        {"authorization": "secret"},
        message=Message("login", {"token": "secret"}),
    )
    assert "secret" not in f"{attempt!r} {attempt}"


def test_the_identity_keeps_its_own_copy_of_the_claims() -> None:
    claims = {"role": "user"}
    identity = LoginAttempt("192.0.2.1", "c").identify("alice", claims)
    claims["role"] = "admin"
    assert identity.claims == {"role": "user"}
    with pytest.raises(TypeError):
        identity.claims["role"] = "admin"  # type: ignore[index]
