"""Secrets that others can see: what is said, and that it holds none of them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from token_makers import SECRET, public_pem
from twisted.logger import globalLogPublisher

from lhttp_tx.twistd.checking import main
from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.secrecy import exposed, find_exposures
from lhttp_tx.twistd.tap import makeService

URL = "nats://127.0.0.1:4222"


class Parsed(Options):
    """Options that leave the reactor as it is."""

    installs_reactor = False


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("token", "creds", "node.pem", "passwords", "secret", "key.pem"):
        (tmp_path / name).write_text("alice:sesame sesame sesame\n")
    (tmp_path / "creds").write_text("BEGIN NATS USER JWT\nBEGIN USER NKEY SEED\n")
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "public.pem").write_bytes(public_pem("EdDSA"))
    for path in tmp_path.iterdir():
        path.chmod(0o640)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LHTTP_PUBLISH_TOKEN", raising=False)
    return tmp_path


def said(*arguments: str) -> list[str]:
    options = Parsed()
    options.parseOptions(["--no-plugins", *arguments])
    assert not [line for line in options.exposures if "sesame" in line]
    return options.exposures


FILES = {
    "token": (["--publish-token-file", "token"], "--publish-token-file"),
    "creds": (["--nats", URL, "--nats-credentials", "creds"], "--nats-credentials"),
    "node.pem": (["--nats", URL, "--nats-tls-certificate", "node.pem"], "--nats-tls-certificate"),
    "key.pem": (["--nats", URL, "--nats-tls-certificate", "node.pem", "--nats-tls-key", "key.pem"], "--nats-tls-key"),
    "passwords": (["--auth", "file:passwords"], "--auth file"),
    "secret": (["--jwt-key-file", "secret"], "--jwt-key-file"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("mode", "what"), [(0o644, "read"), (0o642, "change"), (0o666, "read")])
def test_a_file_with_a_secret_that_others_can_read_is_told(directory: Path, name: str, mode: int, what: str) -> None:
    arguments, option = FILES[name]
    assert said(*arguments) == []
    (directory / name).chmod(mode)
    assert said(*arguments) == [
        f"{option}: other users of this machine can {what} {name}; forbid this with chmod o-rwx"
    ]


def test_passwords_and_tokens_for_nats_are_looked_at_too(directory: Path) -> None:
    (directory / "token").chmod(0o644)
    assert len(said("--nats", URL, "--nats-token-file", "token")) == 1
    assert len(said("--nats", URL, "--nats-user", "node", "--nats-password-file", "token")) == 1


def test_a_public_key_is_no_secret(directory: Path) -> None:
    (directory / "public.pem").chmod(0o644)
    assert said("--jwt-key-file", "public.pem") == []


@pytest.mark.parametrize(
    ("description", "path"),
    [
        ("ssl:0:privateKey=key.pem:certKey=cert.pem", "key.pem"),
        ("ssl:0:certKey=cert.pem:privateKey=a\\:b.pem", "a:b.pem"),
        ("ssl:0", "server.pem"),
        ("haproxy:ssl:0:privateKey=key.pem:certKey=cert.pem", "key.pem"),
        ("tcp:0", None),
    ],
)
def test_the_key_of_an_endpoint_is_looked_at(directory: Path, description: str, path: str | None) -> None:
    nothing: dict[str, None] = defaultdict(lambda: None)
    if path is not None:
        (directory / path).touch()
        (directory / path).chmod(0o644)
    told = find_exposures(
        nothing, nats=[], auth=[], listen=[description], arguments=[], config=None, origins={}, secret_keys=[]
    )
    assert [f"can read {path};" in line for line in told] == ([] if path is None else [True])


@pytest.mark.parametrize("url", ["nats://node:sesame@127.0.0.1:4222", "tls://sesame@127.0.0.1:4222"])
def test_a_password_in_a_url_on_the_command_line_is_told(url: str) -> None:
    for arguments in (["--nats", url], [f"--nats={url}"]):
        (line,) = said(*arguments)
        assert "in the list of processes; use --nats-password-file or --nats-token-file" in line
        assert "127.0.0.1:4222" in line


def test_a_users_password_on_the_command_line_is_told() -> None:
    (line,) = said("--auth", "memory:alice:sesame")
    assert "in the list of processes; use --auth file:PATH" in line


def test_a_password_in_a_configuration_file_is_told_where_others_can_read_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "lhttp.toml").write_text('nats = "nats://node:sesame@127.0.0.1:4222"\nauth = "memory:alice:sesame"\n')
    (directory / "lhttp.toml").chmod(0o640)
    assert said("--config", "lhttp.toml") == []
    (directory / "lhttp.toml").chmod(0o644)
    (line,) = said("--config", "lhttp.toml")
    assert line.startswith("--config (a password is in it): other users of this machine can read lhttp.toml")
    main(["lhttp.toml"])
    written = capsys.readouterr().out
    assert "other users of this machine can read lhttp.toml" in written
    assert "sesame" not in written


def test_a_password_in_a_variable_is_in_no_configuration_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "lhttp.toml").write_text("demo = true\n")
    (directory / "lhttp.toml").chmod(0o644)
    monkeypatch.setenv("LHTTP_NATS", "nats://node:sesame@127.0.0.1:4222")
    monkeypatch.setenv("LHTTP_AUTH", "memory:alice:sesame")
    assert said("--config", "lhttp.toml") == []


def test_a_pipe_and_a_file_that_is_gone_are_not_told() -> None:
    assert exposed("--x", "/dev/null") is None
    assert exposed("--x", "/no/such/file") is None


def test_it_is_in_the_log_of_the_start(directory: Path) -> None:
    (directory / "token").chmod(0o644)
    options = Options()
    options.parseOptions(["--no-plugins", "--publish-token-file", "token"])
    lines: list[str] = []

    def observe(event: dict[str, object]) -> None:
        lines.append(str(event.get("line", "")))

    globalLogPublisher.addObserver(observe)
    try:
        makeService(options)
    finally:
        globalLogPublisher.removeObserver(observe)
    assert [line for line in lines if "other users of this machine can read token" in line]
