"""
No file of an operator stops a server by being a pipe, when it starts or while it runs.

The standard input and ``<(command)`` of a shell are pipes, too. A start reads them where it reads a file once.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pipes import at_once, put_pipe
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from token_makers import SECRET, jwk, make_token, private_key, private_pem
from twisted.cred.checkers import FilePasswordDB
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.python.usage import UsageError

from lhttp_tx import Message, Refused
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.auth.cred import CredAuthenticator
from lhttp_tx.observe.log_files import reopen
from lhttp_tx.ports.certificates import Certificates, tls_files
from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.renewal import Renewal, renewal_of
from lhttp_tx.twistd.settings import SettingsError
from lhttp_tx.twistd.tap import make_server

NATS = ("--nats", "nats://127.0.0.1:4222")
CREDENTIALS = "-----BEGIN NATS USER JWT-----\nx\n------END\n-----BEGIN USER NKEY SEED-----\ny\n------END\n"
CONFIG = '[admin.keys.ops]\nsecret_file = "operator"\nmethods = ["*"]\n'
WHY = "is no regular file, but a pipe"


def certificate() -> str:
    """Return a certificate for the key of :func:`private_pem`."""
    key, name = private_key("RS256"), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begin).not_valid_after(begin.replace(year=2100))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@contextmanager
def told() -> Iterator[list[str]]:
    """Return the lines that are logged meanwhile."""
    lines: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        lines.append(str(event.get("log_format")).format(**event))

    globalLogPublisher.addObserver(observe)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)


class Tried(Options):
    """Options that change nothing in this process."""

    installs_reactor = False


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    contents = {
        **dict.fromkeys(("token", "password", "operator"), "0123456789abcdef-old"),
        "secret": SECRET.decode(),
        "keys.json": json.dumps({"keys": [jwk("ES256", kid="a")]}),
        "users": "alice:sesame\n",
        "creds": CREDENTIALS,
        "lhttp.toml": CONFIG,
        "key.pem": private_pem("RS256").decode(),
        "cert.pem": certificate(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LHTTP_PUBLISH_TOKEN", raising=False)
    with at_once():
        yield tmp_path


def parse(*arguments: str) -> Options:
    options = Tried()
    options.parseOptions(["--no-plugins", *arguments])
    return options


def listen(*parts: str) -> tuple[str, str]:
    return "--listen", ":".join(("ssl", "0", *parts))


AT_THE_START: dict[str, tuple[str, tuple[str, ...]]] = {
    "credentials of NATS": ("creds", (*NATS, "--nats-credentials", "creds")),
    "authorities of NATS": ("x", (*NATS, "--nats-tls-ca", "x")),
    "certificate for NATS": ("x", (*NATS, "--nats-tls-certificate", "x")),
    "key for NATS": ("x", (*NATS, "--nats-tls-certificate", "cert.pem", "--nats-tls-key", "x")),
    "users": ("users", ("--auth", "file:users")),
    "key of TLS": ("key.pem", listen("privateKey=key.pem", "certKey=cert.pem")),
    "key of TLS in its place": ("key.pem", listen("key.pem", "cert.pem")),
    "key of TLS by default": ("server.pem", listen()),
    "certificate of TLS": ("cert.pem", listen("privateKey=key.pem", "certKey=cert.pem")),
    "chain of TLS": ("x", listen("privateKey=key.pem", "certKey=cert.pem", "extraCertChain=x")),
    "parameters of TLS": ("x", listen("privateKey=key.pem", "certKey=cert.pem", "dhParameters=x")),
    "TLS behind a proxy": ("key.pem", ("--listen", "haproxy:ssl:0:key.pem:cert.pem")),
    "TLS of devices": ("key.pem", ("--tcp", "ssl:0:key.pem:cert.pem")),
    "TLS of the admin side": ("key.pem", ("--admin", "ssl:0:key.pem:cert.pem")),
    "key of the admin side": ("operator", ("--config", "lhttp.toml", "--admin", "0")),
    "history": ("x", ("--history-store", "sqlite:x")),
    "users of the manhole": ("x", ("--manhole", "0", "--manhole-keys", "x")),
    "key of the manhole": ("x", ("--manhole", "0", "--manhole-keys", "users", "--manhole-host-key", "x")),
}


@pytest.mark.parametrize("place", AT_THE_START)
def test_a_pipe_that_is_read_again_and_again_stops_the_start_at_once(place: str, directory: Path) -> None:
    name, arguments = AT_THE_START[place]
    if "manhole" in place:
        pytest.importorskip("bcrypt", reason="needs lhttp_tx[manhole]")
    put_pipe(directory / name)
    with pytest.raises(UsageError, match="no regular file"):
        parse(*arguments)


def test_credentials_without_a_token_stop_the_start(directory: Path) -> None:
    (directory / "creds").write_text("-----BEGIN USER NKEY SEED-----\ny\n", "utf-8")
    with pytest.raises(UsageError, match="--nats-credentials creds: it holds no credentials for NATS"):
        parse(*NATS, "--nats-credentials", "creds")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--publish-token-file", "{}"), lambda options: options.config.publish_token.decode()),
        ((*NATS, "--nats-token-file", "{}"), lambda options: options.config.nats.token),
        ((*NATS, "--nats-user", "me", "--nats-password-file", "{}"), lambda options: options.config.nats.password),
        (("--jwt-key-file", "{}"), lambda options: options.token_authenticator.keys.material.decode()),
    ],
)
def test_a_start_reads_what_a_shell_pipes_to_it(arguments: tuple[str, ...], found: Callable[[Options], str]) -> None:
    end, other = os.pipe()
    try:
        os.write(other, SECRET)
        os.close(other)
        assert found(parse(*(part.format(f"/dev/fd/{end}") for part in arguments))) == SECRET.decode()
    finally:
        os.close(end)


@pytest.mark.parametrize(
    ("name", "arguments", "read"),
    [
        ("token", ("--publish-token-file", "token"), Options.publish_token),
        ("secret", ("--jwt-key-file", "secret"), Options.read_keys),
        ("keys.json", ("--jwks-file", "keys.json"), Options.read_keys),
        ("token", (*NATS, "--nats-token-file", "token"), Options.nats_servers),
        ("password", (*NATS, "--nats-user", "me", "--nats-password-file", "password"), Options.nats_servers),
        ("creds", (*NATS, "--nats-credentials", "creds"), Options.nats_servers),
    ],
)
def test_a_server_that_runs_does_not_wait_for_a_secret(
    name: str, arguments: tuple[str, ...], read: Callable[[Options], object], directory: Path
) -> None:
    options = parse(*arguments)
    if "--nats" not in arguments:
        from twisted.internet import reactor

        renewal_of(options, make_server(options, reactor), Certificates())
    else:
        options.wait = 0.0  # as renewal_of() does, which would need a bus here
    put_pipe(directory / name)
    with pytest.raises(UsageError, match=WHY):
        read(options)


@pytest.mark.parametrize(
    ("name", "why"), [("lhttp.toml", f"lhttp.toml {WHY}"), ("operator", f"secret_file operator {WHY}")]
)
def test_a_server_that_runs_does_not_wait_for_its_configuration(name: str, why: str, directory: Path) -> None:
    file = parse("--config", "lhttp.toml", "--admin", "0").sources.file
    assert file is not None
    put_pipe(directory / name)
    with pytest.raises(SettingsError) as caught:
        file.load_again()
    assert why in "\n".join(caught.value.problems)


def test_tokens_with_new_keys_do_not_wait_for_them(directory: Path) -> None:
    authenticator = parse("--jwks-file", "keys.json").token_authenticator
    put_pipe(directory / "keys.json")
    with told() as lines, pytest.raises(Refused):
        token = make_token("RS256", headers={"kid": "b"})
        authenticator.authenticate(LoginAttempt("", "", message=Message("login", {"token": token})))
    assert any(WHY in line and "the old keys stay active" in line for line in lines)


def test_a_login_does_not_wait_for_the_file_of_users(directory: Path) -> None:
    authenticator = CredAuthenticator([FilePasswordDB("users")])
    put_pipe(directory / "users")
    attempt = LoginAttempt("", "", message=Message("login", {"user": "alice", "password": "sesame"}))
    outcome: list[Any] = []
    with told() as lines:
        Deferred.fromCoroutine(authenticator.authenticate(attempt)).addErrback(outcome.append)
    assert [failure.value.status for failure in outcome] == [401]
    assert any(f"nobody can log in with the file of users: users {WHY}" in line for line in lines)


@pytest.mark.parametrize("name", ["key.pem", "cert.pem"])
def test_the_renewal_of_a_certificate_does_not_wait(name: str, directory: Path) -> None:
    certificates = Certificates()
    certificates.endpoint(None, "ssl:0:key.pem:cert.pem")
    renewal = Renewal()
    renewal.add_certificates(certificates)
    put_pipe(directory / name)
    with told() as lines:
        assert renewal.renew()
    (line,) = lines
    assert "certificate of ssl:0:key.pem:cert.pem stays as it was" in line
    assert WHY in line


def test_a_connection_to_nats_does_not_wait(directory: Path) -> None:
    pytest.importorskip("nats", reason="needs lhttp_tx[nats]")
    from lhttp_tx.bus.nats.opening import read_credentials, tls_context
    from lhttp_tx.bus.nats.servers import NATSServers

    assert read_credentials("creds").data == CREDENTIALS
    for name in ("creds", "ca", "certificate", "key"):
        put_pipe(directory / name)
    with pytest.raises(ValueError, match=f"creds {WHY}"):
        read_credentials("creds")
    for fields in ({"tls_ca": "ca"}, {"tls_certificate": "certificate"}, {"tls_key": "key"}):
        with pytest.raises(ValueError, match=WHY):
            tls_context(NATSServers(("tls://a",), **fields))  # type: ignore[arg-type]


def test_a_login_to_the_manhole_does_not_wait(directory: Path) -> None:
    pytest.importorskip("bcrypt", reason="needs lhttp_tx[manhole]")
    from lhttp_tx.twistd.manhole import _AuthorizedKeys

    with pytest.raises(ValueError, match=WHY):
        _AuthorizedKeys(put_pipe(directory / "x")).getAuthorizedKeys(b"me")


def test_the_log_goes_on_in_the_old_file_where_a_pipe_has_taken_its_place(directory: Path) -> None:
    path = directory / "log"
    with path.open("w") as file:
        path.rename(directory / "log.1")
        put_pipe(path)
        with pytest.raises(OSError, match="No such device"):
            reopen(file)
        path.unlink()
        path.symlink_to("/dev/null")
        with pytest.raises(OSError, match="log is no regular file"):
            reopen(file)
        file.write("goes on")
    assert (directory / "log.1").read_text() == "goes on"


@pytest.mark.parametrize(
    ("description", "files"),
    [
        ("tcp:80", []),
        ("ssl:443", ["server.pem"]),
        ("ssl:443:key:cert:extraCertChain=chain", ["key", "cert", "chain"]),
        (r"haproxy:ssl:443:privateKey=a\:b:dhParameters=dh", ["a:b", "dh"]),
        ("ssl:443:\\", []),
    ],
)
def test_the_files_of_an_endpoint(description: str, files: list[str]) -> None:
    assert tls_files(description) == files
