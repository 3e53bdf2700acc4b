"""The options about NATS: what is made of them, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from lhttp_tx.bus.nats.servers import NATSServers
from lhttp_tx.twistd.options import Options

URL = "nats://127.0.0.1:4222"


def parse(*arguments: str) -> NATSServers | None:
    options = Options()
    options.installs_reactor = False  # pytest has installed one
    options.parseOptions(["--no-plugins", *arguments])
    return options.config.nats


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files to name, in the working directory."""
    for name in ("password", "token", "creds", "ca.pem", "node.pem", "node.key"):
        (tmp_path / name).write_text(f" {name}\n", encoding="utf-8")
    (tmp_path / "creds").write_text("BEGIN NATS USER JWT\nBEGIN USER NKEY SEED\n", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff")
    monkeypatch.chdir(tmp_path)


def test_without_a_server_there_is_no_cluster() -> None:
    assert parse() is None


def test_servers_are_added_up() -> None:
    assert parse("--nats", URL, "--nats", "tls://b") == NATSServers((URL, "tls://b"))


@pytest.mark.usefixtures("files")
def test_everything_can_be_set() -> None:
    assert parse(
        *("--nats", URL, "--nats-prefix", "", "--nats-user", "me", "--nats-password-file", "password"),
        *("--nats-token-file", "token", "--nats-credentials", "creds", "--nats-tls-ca", "ca.pem"),
        *("--nats-tls-certificate", "node.pem", "--nats-tls-key", "node.key", "--nats-local-delivery"),
    ) == NATSServers(
        (URL,),
        prefix="",
        user="me",
        password="password",
        token="token",
        credentials_file="creds",
        tls_ca="ca.pem",
        tls_certificate="node.pem",
        tls_key="node.key",
        local_delivery=True,
    )


MISTAKES = {
    "server is no URL": (["--nats", "127.0.0.1"], "write one such as nats://127.0.0.1:4222"),
    "server is another kind": (["--nats", "http://a"], "is not the URL of a NATS server"),
    "prefix is no token": (
        ["--nats", URL, "--nats-prefix", "lhttp"],
        "write tokens that end with a dot, such as lhttp.",
    ),
    "prefix is NATS's own": (["--nats", URL, "--nats-prefix", "$SYS."], "is not a prefix of NATS subjects"),
    "user without server": (["--nats-user", "me"], "--nats-user is for NATS: name a server with --nats"),
    "certificate without server": (["--nats-tls-certificate", "node.pem"], "name a server with --nats"),
    "local delivery without server": (["--nats-local-delivery"], "name a server with --nats"),
    "certificate for workers": (["--workers", "2", "--nats-tls-ca", "ca.pem"], "name a server with --nats"),
    "user without password": (["--nats", URL, "--nats-user", "me"], "--nats-user needs --nats-password-file"),
    "password without user": (["--nats", URL, "--nats-password-file", "password"], "needs --nats-user: give both"),
    "key without certificate": (["--nats", URL, "--nats-tls-key", "node.key"], "needs --nats-tls-certificate"),
    "token file is missing": (["--nats", URL, "--nats-token-file", "none"], "--nats-token-file: [Errno 2]"),
    "credentials are missing": (["--nats", URL, "--nats-credentials", "none"], "--nats-credentials: [Errno 2]"),
    "authority is missing": (["--nats", URL, "--nats-tls-ca", "none"], "--nats-tls-ca: [Errno 2]"),
    "token is no text": (["--nats", URL, "--nats-token-file", "binary"], "--nats-token-file: 'utf-8'"),
}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_says_what_to_do(mistake: str) -> None:
    arguments, advice = MISTAKES[mistake]
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    assert advice in str(caught.value)


def test_a_mistake_in_a_url_does_not_show_its_password() -> None:
    with pytest.raises(UsageError) as caught:
        parse("--nats", "nats://me:secret@a/path")
    assert "secret" not in str(caught.value)
