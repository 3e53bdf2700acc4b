"""The options about who clients are, and what is said of mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from token_makers import FAR, SECRET, jwk, make_token, private_pem, public_pem
from twisted.internet.task import Clock
from twisted.python.usage import UsageError

from lhttp_tx import Authenticator, Message, Refused
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.config import Config
from lhttp_tx.service import LHTTPService
from lhttp_tx.twistd.options import Options

SOURCE = """
from lhttp_tx import Authenticator, processor

class Nobody(Authenticator):
    pass

@processor("login")
def login(request):
    pass
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    (tmp_path / "public.pem").write_bytes(public_pem("EdDSA"))
    (tmp_path / "private.pem").write_bytes(private_pem("EdDSA"))
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwk("ES256", kid="a")]}))
    (tmp_path / "passwords").write_text("alice:sesame\n")
    (tmp_path / "own.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(arguments: str) -> Options:
    options = Options()
    options.parseOptions(["--no-plugins", *arguments.split()])
    return options


def kinds(arguments: str) -> list[str]:
    return [type(found).__name__ for found in parse(arguments).authenticators]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", []),
        ("--auth file:passwords", ["CredAuthenticator"]),
        ("--auth file:passwords --auth memory:a:b", ["CredAuthenticator"]),
        ("--jwt-key-file secret", ["TokenAuthenticator"]),
        ("--jwt-key-file public.pem", ["TokenAuthenticator"]),
        ("--jwks-file keys.json", ["TokenAuthenticator"]),
        ("--authenticator own.py:Nobody", ["Nobody"]),
        (
            "--auth file:passwords --jwt-key-file secret --authenticator own:Nobody",
            ["Nobody", "TokenAuthenticator", "CredAuthenticator"],
        ),
    ],
)
def test_authenticators_are_asked_in_this_order(arguments: str, expected: list[str]) -> None:
    assert kinds(arguments) == expected


def test_every_setting_of_tokens_reaches_them() -> None:
    (tokens,) = parse(
        "--jwt-key-file secret --jwt-audience chat --jwt-issuer me --jwt-leeway 7 --jwt-cookie c --jwt-query q"
        " --jwt-user-claim name"
    ).authenticators
    token = make_token(aud="chat", iss="me", name="bob")
    for where in ({"headers": {"cookie": f"c={token}"}}, {"parameters": {"q": token}}):
        found = tokens.authenticate(LoginAttempt("", "", **where))  # type: ignore[arg-type]
        assert (found.user, found.expires) == ("bob", FAR + 7)  # type: ignore[union-attr]
    assert tokens.secret_parameters == {"q"}


def test_every_setting_of_the_gate_can_be_set() -> None:
    config = parse(
        "--auth memory:a:b --login-timeout 2 --max-failed-logins 4 --auth-timeout 6 --auth-max-in-flight 7"
    ).config
    found = (config.login_timeout, config.max_failed_logins, config.auth_timeout, config.auth_max_in_flight)
    assert found == (2, 4, 6, 7)
    assert parse("--auth memory:a:b --allow-anonymous").config.allow_anonymous


def test_a_key_set_that_has_changed_is_read_again(directory: Path) -> None:
    (tokens,) = parse("--jwks-file keys.json").authenticators
    attempt = LoginAttempt("", "", message=Message("login", {"token": make_token("RS256", headers={"kid": "b"})}))
    (directory / "keys.json").write_text(json.dumps({"keys": [jwk("RS256", kid="b")]}))
    assert tokens.authenticate(attempt).user == "alice"  # type: ignore[union-attr]


def test_a_key_set_that_has_changed_for_the_worse_is_left_alone(directory: Path) -> None:
    (tokens,) = parse("--jwks-file keys.json").authenticators
    (directory / "keys.json").write_text("nonsense")
    for algorithm, kid in (("RS256", "b"), ("ES256", "a")):
        token = make_token(algorithm, headers={"kid": kid})
        attempt = LoginAttempt("", "", message=Message("login", {"token": token}))
        if kid == "a":
            assert tokens.authenticate(attempt) is not None
        else:
            with pytest.raises(Refused, match="which no key has"):
                tokens.authenticate(attempt)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--auth nonsense:x", "--auth nonsense: there is no such kind; there are file, memory, unix"),
        ("--auth memory:secret", "--auth memory: argstring must be in format U:P"),
        ("--auth anonymous", "--auth anonymous: it does not accept passwords"),
        ("--auth file:nowhere", "--auth file: there is no file 'nowhere'; give its path: file:PATH"),
        ("--authenticator own.py:other", "has no 'other'"),
        ("--authenticator own.py:login", "is no IAuthenticator; subclass lhttp_tx.Authenticator"),
        ("--allow-anonymous", "--allow-anonymous needs an authenticator: add --auth"),
        ("--login-timeout 5", "--login-timeout needs an authenticator: add --auth"),
        ("--auth memory:a:b --allow-anonymous --login-timeout 5", "leave out --allow-anonymous"),
        ("--require-auth", "--require-auth: there is no authenticator; add --auth"),
        ("--require-auth --login-parameter user", "--require-auth: there is no authenticator"),
        ("--require-auth --auth memory:a:b --allow-anonymous", "--allow-anonymous contradicts --require-auth"),
        ("--auth memory:a:b --login-timeout -1", "-1 is not from 0 to 86400"),
        ("--auth memory:a:b --login-timeout nan", "nan is not from 0 to 86400"),
        ("--auth memory:a:b --login-timeout x", "'x' is not a number"),
        ("--jwt-audience chat", "--jwt-audience is for tokens: name a key with --jwt-key-file or --jwks-file"),
        ("--jwt-query t", "--jwt-query is for tokens"),
        ("--jwt-key-file secret --jwks-file keys.json", "put all keys into the key set, and give only --jwks-file"),
        ("--jwt-key-file nowhere", "--jwt-key-file: .*No such file"),
        ("--jwt-key-file private.pem", "--jwt-key-file private.pem: it contains a private key"),
        ("--jwt-key-file keys.json", "--jwt-key-file keys.json: .*pass a key set with --jwks-file"),
        ("--jwks-file secret", "--jwks-file secret: it is not a JSON Web Key Set"),
        ("--jwt-key-file secret --jwt-cookie a;b", "--jwt-cookie 'a;b' is not the name of a cookie"),
        ("--jwt-key-file secret --jwt-cookie c --allow-origin *", "pages of any site could act for your users"),
        ("--auth memory:a:b --processor own.py:login", "<processor login> has the command 'login'"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(arguments: str, text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        parse(arguments)
    assert "secret" not in str(caught.value).replace("--jwks-file secret", "")


def test_a_server_that_must_know_its_clients_starts_where_it_does() -> None:
    assert parse("--require-auth --auth file:passwords").config.require_auth
    assert parse("--require-auth --auth file:passwords --login-timeout 5").config.require_auth


@pytest.mark.parametrize(
    ("config", "authenticators"),
    [(Config(require_auth=True), ()), (Config(require_auth=True, allow_anonymous=True), (Authenticator(),))],
)
def test_an_embedded_one_is_not_made_where_it_does_not(config: Config, authenticators: Any) -> None:
    with pytest.raises(ValueError, match="anybody may connect"):
        LHTTPService(config, reactor=Clock(), authenticators=authenticators)


def test_a_command_login_is_free_where_nobody_logs_in() -> None:
    assert [found.command for found in parse("--processor own.py:login").processors] == ["login"]


@pytest.mark.parametrize("option", ["--help-auth", "--help-auth-type=file"])
def test_kinds_of_checkers_are_explained(option: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(option)


def test_a_checker_of_the_command_line_knows_its_users() -> None:
    (authenticator,) = parse("--auth memory:alice:sesame").authenticators
    attempt = LoginAttempt("", "", message=Message("login", {"user": "alice", "password": "sesame"}))
    answer = authenticator.authenticate(attempt)
    with pytest.raises(StopIteration) as caught:
        answer.send(None)  # type: ignore[union-attr]
    assert caught.value.value.user == "alice"
