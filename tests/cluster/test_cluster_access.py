"""Logging in to NATS: passwords, tokens, certificates and credentials files, and what is said where it fails."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from integration._nats import NATSProcess, needs_nats
from integration._server import RawClient, ServerProcess, http_request, message, wait_until

from cluster._cluster import join

pytestmark = needs_nats

SECRET = "correct horse"


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], NATSProcess]:
    """Start a nats-server with what its configuration file shall hold."""

    def start(settings: str) -> NATSProcess:
        (tmp_path / "nats.conf").write_text(settings, "utf-8")
        process = NATSProcess("-c", str(tmp_path / "nats.conf"))
        request.addfinalizer(process.stop)
        return process

    return start


def written(directory: Path, name: str, text: str) -> str:
    (directory / name).write_text(text, "utf-8")
    return str(directory / name)


def check_works(node: ServerProcess) -> None:
    join(node)
    with RawClient(node.port) as client:
        client.subscribe("room")
        client.send(message("chat", {"publish": "room"}, "hello"))
        assert client.receive()[1].endswith(b"hello")


def test_a_user_with_a_password_from_a_file(
    serve: Callable[..., ServerProcess], start: Callable[[str], NATSProcess], tmp_path: Path
) -> None:
    nats = start(f'authorization {{ user: node, password: "{SECRET}" }}')
    password = written(tmp_path, "password", f"{SECRET}\n")
    node = serve("--nats", nats.url, "--nats-user", "node", "--nats-password-file", password)
    check_works(node)
    assert SECRET not in node.log


def test_a_user_with_a_password_in_the_url(
    serve: Callable[..., ServerProcess], start: Callable[[str], NATSProcess]
) -> None:
    nats = start('authorization { user: node, password: "sesame" }')
    node = serve("--nats", nats.url.replace("//", "//node:sesame@"))
    check_works(node)
    assert "sesame" not in node.log


def test_a_token_from_a_file(
    serve: Callable[..., ServerProcess], start: Callable[[str], NATSProcess], tmp_path: Path
) -> None:
    nats = start(f'authorization {{ token: "{SECRET}" }}')
    node = serve("--nats", nats.url, "--nats-token-file", written(tmp_path, "token", f"{SECRET}\n"))
    check_works(node)
    assert SECRET not in node.log


def test_a_wrong_password_is_said_without_it_and_tried_again(
    serve: Callable[..., ServerProcess], start: Callable[[str], NATSProcess], tmp_path: Path
) -> None:
    nats = start('authorization { user: node, password: "another" }')
    password = written(tmp_path, "password", SECRET)
    node = serve("--nats", nats.url, "--nats-user", "node", "--nats-password-file", password)
    node.wait_for_log(f"cannot reach NATS, retrying: {nats.url}: nats: 'Authorization Violation'")
    nats.kill()
    written(tmp_path, "nats.conf", f'authorization {{ user: node, password: "{SECRET}" }}')
    nats.start()
    check_works(node)
    assert SECRET not in node.log


def test_a_channel_that_nats_does_not_allow_is_refused_to_its_subscriber(
    serve: Callable[..., ServerProcess], start: Callable[[str], NATSProcess]
) -> None:
    rules = 'permissions: { subscribe: { deny: "lhttp.secret" }, publish: { deny: "lhttp.quiet" } }'
    nats = start(f"authorization {{ users: [ {{ user: node, password: sesame, {rules} }} ] }}")
    node = serve("--nats", nats.url.replace("//", "//node:sesame@"))
    check_works(node)
    with RawClient(node.port) as client:
        client.send(message("chat", {"subscribe": "secret", "receipt": "s"}))
        assert b"status:503\r\nreason:the bus does not allow this channel" in client.receive()[1]
        client.send(message("chat", {"publish": "quiet"}, "hush"))
        node.wait_for_log("NATS forbids this node to publish to 'lhttp.quiet'")
    check_works(node)
    assert "lost NATS" not in node.log


def test_who_publishes_to_channels_that_nats_does_not_allow_fails_no_receipts_of_others(
    serve: Callable[..., ServerProcess], start: Callable[[str], NATSProcess]
) -> None:
    rules = 'permissions: { publish: { deny: "lhttp.secret.>" } }'
    nats = start(f"authorization {{ users: [ {{ user: node, password: sesame, {rules} }} ] }}")
    node = serve("--nats", nats.url.replace("//", "//node:sesame@"))
    check_works(node)
    with RawClient(node.port) as hostile, RawClient(node.port) as honest:
        for number in range(300):
            hostile.send(message("chat", {"publish": f"secret.{number}"}, "x"))
            honest.send(message("chat", {"publish": f"room.{number % 3}", "receipt": f"r{number}"}, "x"))
        for number in range(300):
            assert honest.receive()[1].startswith(b"LHTTP/1.0 receipt\r\nreceipt-id:r%d" % number)
        for name in ("secret.1", "secret.new", "room.1 secret.newer"):  # one that is known by now, and two that are not
            hostile.send(message("chat", {"publish": name, "receipt": "own"}, "x"))
            told = hostile.receive()[1]
            while b"receipt-id:own" not in told:  # the errors of those before
                told = hostile.receive()[1]
            assert b"status:503\r\nreason:the bus does not allow this channel" in told
    check_works(node)
    assert "lost NATS" not in node.log


def test_who_publishes_to_a_history_that_nats_does_not_allow_delays_no_receipts_of_others(
    serve: Callable[..., ServerProcess], start: Callable[[str], NATSProcess], tmp_path: Path
) -> None:
    rules = 'permissions: { publish: { deny: "lhttp-history.*.kept.shut" } }'
    storage = f'jetstream {{ store_dir: "{tmp_path}" }}'
    nats = start(f"{storage}\nauthorization {{ users: [ {{ user: node, password: sesame, {rules} }} ] }}")
    node = serve("--nats", nats.url.replace("//", "//node:sesame@"), "--history", "kept.*")
    check_works(node)
    wait_until(lambda: health(node) == {"status": "ok"}, "it has its stream")
    with RawClient(node.port) as hostile, RawClient(node.port) as honest:
        begun = time.monotonic()
        for number in range(100):
            hostile.send(message("chat", {"publish": "kept.shut", "receipt": f"h{number}"}, "x"))
            honest.send(message("chat", {"publish": "kept.open", "receipt": f"r{number}"}, "x"))
        for number in range(100):
            assert honest.receive()[1].startswith(b"LHTTP/1.0 receipt\r\nreceipt-id:r%d" % number)
            assert b"the bus does not allow this channel" in hostile.receive()[1]
        assert time.monotonic() - begun < 2.5  # not until answers are given up
    assert "lost NATS" not in node.log


def test_tls_with_an_authority_of_ones_own_and_a_certificate_for_the_node(
    serve: Callable[..., ServerProcess], start: Callable[[str], NATSProcess], tmp_path: Path
) -> None:
    issue = authority(tmp_path)
    issue("server")
    issue("node")
    files = ", ".join(
        f'{name}: "{tmp_path / file}"'
        for name, file in [("cert_file", "server.pem"), ("key_file", "server.key"), ("ca_file", "ca.pem")]
    )
    nats = start(f"tls {{ {files}, verify: true }}")
    own = ("--nats-tls-certificate", str(tmp_path / "node.pem"), "--nats-tls-key", str(tmp_path / "node.key"))
    trusted = ("--nats-tls-ca", str(tmp_path / "ca.pem"))
    check_works(serve("--nats", nats.url, *trusted, *own))
    check_works(serve("--nats", nats.url.replace("nats:", "tls:"), *trusted, *own))

    without_certificate = serve("--nats", nats.url, *trusted)
    without_certificate.wait_for_log("cannot reach NATS, retrying: nats://127.0.0.1")
    without_trust = serve("--nats", nats.url.replace("nats:", "tls:"), *own)
    without_trust.wait_for_log("certificate verify failed")


def test_a_server_without_tls_gets_no_password_where_tls_was_asked_for(
    serve: Callable[..., ServerProcess], start: Callable[[str], NATSProcess], tmp_path: Path
) -> None:
    nats = start(f'authorization {{ user: node, password: "{SECRET}" }}')
    login = ("--nats-user", "node", "--nats-password-file", written(tmp_path, "password", SECRET))
    authority(tmp_path)
    for node in (
        serve("--nats", nats.url.replace("nats:", "tls:"), *login),
        serve("--nats", nats.url, "--nats-tls-ca", str(tmp_path / "ca.pem"), *login),
    ):
        node.wait_for_log("the server offers no TLS, so nothing was sent to it")
        assert "connected to NATS" not in node.log


def test_a_credentials_file(
    serve: Callable[..., ServerProcess], start: Callable[[str], NATSProcess], tmp_path: Path
) -> None:
    nkeys = pytest.importorskip("nkeys", reason="nkeys is not installed (it comes with lhttp_tx[nats])")
    operator, account, user = (
        KeyPair(nkeys, kind) for kind in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    operator_token = operator.sign(operator, {"type": "operator"})
    account_token = operator.sign(account, {"type": "account", "limits": limits | {"wildcards": True}})
    user_token = account.sign(user, {"type": "user", "subs": -1, "data": -1, "payload": -1})
    nats = start(
        f"operator: {operator_token}\nresolver: MEMORY\nresolver_preload: {{ {account.public}: {account_token} }}\n"
    )
    credentials = written(
        tmp_path,
        "node.creds",
        f"-----BEGIN NATS USER JWT-----\n{user_token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n",
    )
    check_works(serve("--nats", nats.url, "--nats-credentials", credentials))


class KeyPair:
    """An Ed25519 key as NATS writes them, which signs JWTs."""

    def __init__(self, nkeys: Any, kind: int) -> None:
        seed = nkeys.encode_seed(os.urandom(32), kind)
        self.seed = seed.decode()
        self._pair = nkeys.from_seed(bytearray(seed))
        self.public = self._pair.public_key.decode()

    def sign(self, subject: KeyPair, claims: dict[str, Any]) -> str:
        """Return a token in which this key says something of another, or of itself."""
        body = {"iat": 1_700_000_000, "iss": self.public, "name": "test", "sub": subject.public}
        body["nats"] = {**claims, "version": 2}
        body["jti"] = base64.b32encode(hashlib.new("sha512_256", json.dumps(body).encode()).digest()).decode()
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = b".".join(_base64(json.dumps(part).encode()) for part in (head, body))
        return (text + b"." + _base64(self._pair.sign(text))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def authority(directory: Path) -> Callable[[str], None]:
    """Write ``ca.pem``, and return what writes ``NAME.pem`` and ``NAME.key`` of a certificate that it signed."""
    now = datetime.datetime.now(datetime.UTC)
    own_key, own_name = ec.generate_private_key(ec.SECP256R1()), _name("authority")

    def certificate(name: str, key: Any, constraint: x509.BasicConstraints) -> bytes:
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(own_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(address, critical=False)
            .add_extension(constraint, critical=True)
        )
        return builder.sign(own_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (directory / f"{name}.key").write_bytes(key.private_bytes(*form))
        (directory / f"{name}.pem").write_bytes(certificate(name, key, x509.BasicConstraints(False, None)))

    (directory / "ca.pem").write_bytes(certificate("authority", own_key, x509.BasicConstraints(True, 0)))
    return issue


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


@pytest.mark.parametrize("verb", ["publish", "subscribe"])
def test_health_is_not_ok_while_nats_forbids_the_prefix(
    serve: Callable[..., ServerProcess], start: Callable[[str], NATSProcess], tmp_path: Path, verb: str
) -> None:
    users = "authorization {{ users: [ {{ user: node, password: sesame, permissions: {{ {} }} }} ] }}"
    nats = start(users.format(f'{verb}: {{ deny: "lhttp.>" }}'))
    node = serve("--nats", nats.url.replace("//", "//node:sesame@"))
    node.wait_for_log(f"NATS forbids this node to {verb} to")
    wait_until(lambda: health(node) == {"status": "degraded"}, "it says so")
    written(tmp_path, "nats.conf", users.format(f'{verb}: {{ deny: "lhttp.quiet" }}'))
    nats.send_signal(signal.SIGHUP)
    wait_until(lambda: health(node) == {"status": "ok"}, "it says that all is well")


def health(node: ServerProcess) -> object:
    status, _, body = http_request(node.port, "GET", "/health")
    assert status == 200
    return json.loads(body)
