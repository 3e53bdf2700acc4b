"""How the ``lhttp`` command logs in, and where it refuses to."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from pipes import at_once, put_pipe
from threading import Thread

import click
import pytest

from lhttp_tx.client.command.cli import lhttp, run
from lhttp_tx.client.command.login_options import (
    Login,
    PasswordLogin,
    SecretFile,
    TokenLogin,
    check_way,
    choose_login,
    read_secret,
)
from lhttp_tx.errors import LHTTPError

SECRET = "s3same"
HERE = "ws://127.0.0.1:8081/"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return path


def test_a_token_is_read_anew_for_each_login(secret: Path) -> None:
    login = TokenLogin(secret)
    assert login.login() == {"token": SECRET}
    secret.write_text("another")
    assert login.headers() == {"Authorization": f"Bearer {SECRET}"}, "it is the same for one connection"
    assert login.login() == {"token": "another"}
    assert login.headers() == {"Authorization": "Bearer another"}


def test_a_token_may_come_from_a_pipe() -> None:
    reading, writing = os.pipe()
    os.write(writing, SECRET.encode())
    os.close(writing)
    try:
        login = TokenLogin(Path(f"/dev/fd/{reading}"))
        assert (login.login()["token"], login.headers()["Authorization"]) == (SECRET, f"Bearer {SECRET}")
    finally:
        os.close(reading)


def test_a_password_goes_with_its_user() -> None:
    login = PasswordLogin("zoë", lambda: "ünl0ck:x")
    assert login.login() == {"user": "zoë", "password": "ünl0ck:x"}
    kind, _, found = login.headers()["Authorization"].partition(" ")
    assert (kind, base64.b64decode(found).decode()) == ("Basic", "zoë:ünl0ck:x")


@pytest.mark.parametrize("data", [b"", b"\n", b"a\nb", b"a\x00b", b"\xff"])
def test_a_file_that_holds_no_secret_is_refused_and_not_shown(secret: Path, data: bytes) -> None:
    secret.write_bytes(data)
    with pytest.raises(LHTTPError, match="does not contain exactly one line of text") as caught:
        read_secret(secret)
    assert SECRET not in str(caught.value)


def test_a_file_that_is_too_large_for_a_secret_is_refused_and_not_shown(secret: Path) -> None:
    secret.write_text(SECRET * 2_000)
    with pytest.raises(LHTTPError, match="secret is larger than 8192 bytes") as caught:
        read_secret(secret)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("make", [TokenLogin, lambda path: PasswordLogin("anna", SecretFile(path))])
def test_a_file_that_has_become_a_pipe_stops_nobody(secret: Path, make: Callable[[Path], Login]) -> None:
    login = make(secret)
    login.login()
    put_pipe(secret)
    with at_once(), pytest.raises(LHTTPError, match="secret is no regular file, but a pipe"):
        login.login()
    secret.unlink()
    secret.write_text("another")
    assert "another" in login.login().values()


@pytest.mark.parametrize("make", [TokenLogin, lambda path: PasswordLogin("anna", SecretFile(path))])
def test_a_pipe_is_read_once(tmp_path: Path, make: Callable[[Path], Login]) -> None:
    login = make(put_pipe(tmp_path / "pipe"))
    writer = Thread(target=lambda: (tmp_path / "pipe").write_text(SECRET))
    writer.start()
    first = login.login()
    writer.join()
    assert SECRET in first.values()
    with at_once():
        assert login.login() == first
        (tmp_path / "pipe").unlink()
        assert login.login() == first


@pytest.mark.parametrize("data", [b"s3same", b"s3same\n", b"s3same\r\n"])
def test_the_end_of_the_line_is_no_part_of_a_secret(secret: Path, data: bytes) -> None:
    secret.write_bytes(data)
    assert read_secret(secret) == SECRET


@pytest.mark.parametrize(
    "url",
    ["ws://localhost/", "ws://127.0.0.1:1/", "ws://127.3.2.1/", "ws://[::1]/", "http://127.0.0.1/", "wss://a.example/",
     "https://a.example/"],
)  # fmt: skip
def test_a_secret_goes_where_nobody_else_can_read_it(url: str) -> None:
    check_way(url, False)


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("ws://a.example/", "wss://"),
        ("http://a.example/publish", "https://"),
        ("ws://192.0.2.1/", "wss://"),
        ("ws://localhost.a.example/", "wss://"),
        ("ws://127.0.0.1.a.example/", "wss://"),
        ("ws://0.0.0.0/", "wss://"),
        ("ws://[2001:db8::1]/", "wss://"),
    ],
)
def test_a_secret_goes_to_no_other_machine_in_the_clear_unless_asked_for(url: str, instead: str) -> None:
    with pytest.raises(click.UsageError, match="not encrypted") as caught:
        check_way(url, False)
    assert instead in caught.value.message
    assert "--plaintext-login" in caught.value.message
    check_way(url, True)


def test_nobody_in_particular_may_go_anywhere() -> None:
    assert choose_login("ws://a.example/", None, None, None, False) is None


def test_a_password_is_read_from_its_file_each_time(secret: Path) -> None:
    login = choose_login(HERE, None, "alice", secret, False)
    assert login is not None
    assert login.login() == {"user": "alice", "password": SECRET}
    secret.write_text("changed\n")
    assert login.login() == {"user": "alice", "password": "changed"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--password-file", "FILE"], "--password-file needs --user NAME"),
        (["--token-file", "FILE", "--user", "alice"], "only one of"),
        (["--token-file", "/nonexistent"], "does not exist"),
        (["--user", "a:b", "--password-file", "FILE"], "without a colon"),
        (["--user", "", "--password-file", "FILE"], "without a colon"),
        (["--user", "alice", "--password-file", "FILE", "--url", "ws://a.example/"], "not encrypted"),
        (["--token-file", "FILE", "--url", "ws://a.example/"], "not encrypted"),
        (["--token-file", "FILE", "--url", "http://a.example/"], "not encrypted"),
        (["--user", "alice", "--password-file", "FILE", "--http"], "accepts no users"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], text: str, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [str(secret) if argument == "FILE" else argument for argument in arguments]
    assert run(["publish", "a", "x", *found]) == 2
    error = capsys.readouterr().err
    assert text in " ".join(error.split())
    assert SECRET not in error


def test_no_option_of_any_subcommand_takes_a_secret() -> None:
    for command in lhttp.commands.values():
        names = {name for parameter in command.params for name in parameter.opts}
        if "--url" in names:
            logs_in_by_key = command.name == "admin"
            assert logs_in_by_key or {"--token-file", "--user", "--password-file", "--plaintext-login"} <= names
            assert not names & {"--token", "--password", "--auth"}


def test_how_one_logs_in_shows_nothing_of_it(secret: Path) -> None:
    login = TokenLogin(secret)
    login.login()
    assert SECRET not in repr(login)
    assert SECRET not in repr(PasswordLogin("alice", lambda: SECRET))
