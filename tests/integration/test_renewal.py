"""SIGHUP reads certificates, tokens and keys again, while connections stay open."""

from __future__ import annotations

import datetime
import ipaddress
import re
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.logger import globalLogPublisher

from integration._collector import Collector
from integration._nats import NATSProcess, needs_nats
from integration._server import TIME_LIMIT, RawClient, ServerProcess, http_request, message, open_client, wait_until
from lhttp_tx.twistd.renewal import Renewal

ADMIN = """
[admin.keys.me]
secret_file = "key"
methods = ["*"]
"""

BODY = message("say", {"publish": "room"}, "hi")


def write_certificate(directory: Path, name: str, *, with_key: bool = True) -> None:
    """Write ``key.pem`` and ``cert.pem`` for 127.0.0.1; without the key, they do not belong together."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    if with_key:
        (directory / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    (directory / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def connect(port: int) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), TIME_LIMIT))


def name_shown(port: int) -> str:
    """Return the name in the certificate that a new connection is shown."""
    with connect(port) as sock:
        found = sock.getpeercert(binary_form=True)
        assert found is not None
        (name,) = x509.load_der_x509_certificate(found).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name.value)


def shown_or_none(port: int) -> str | None:
    try:
        return name_shown(port)
    except OSError:
        return None


def ask(sock: ssl.SSLSocket) -> bytes:
    """Make a request on a connection that stays open."""
    sock.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return sock.recv(4096)[:15]


def test_a_renewed_certificate_is_shown_to_new_connections_and_a_broken_one_is_not(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    write_certificate(tmp_path, "first")
    description = "ssl:0:interface=127.0.0.1:privateKey=key.pem:certKey=cert.pem"
    server = serve("--http-lifetime", "600", listen=("--listen", description))
    wait_until(lambda: name_shown(server.port) == "first", "it serves")
    with connect(server.port) as before:
        assert ask(before) == b"HTTP/1.1 200 OK"
        write_certificate(tmp_path, "second")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log(f"SIGHUP: renewed: certificate of {description}")
        assert name_shown(server.port) == "second"
        assert ask(before) == b"HTTP/1.1 200 OK"
        write_certificate(tmp_path, "third", with_key=False)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log(f"SIGHUP: certificate of {description} stays as it was")
        assert name_shown(server.port) == "second"
        assert ask(before) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("workers", [(), pytest.param(("--workers", "2"), marks=needs_nats)])
@pytest.mark.parametrize("kind", ["proxy", "admin", "grpc"])
def test_each_endpoint_with_tls_shows_a_renewed_certificate(
    serve: Callable[..., ServerProcess], tmp_path: Path, kind: str, workers: tuple[str, ...]
) -> None:
    if kind == "grpc":
        pytest.importorskip("grpc", reason="grpcio is missing (the extra grpc)")
    write_certificate(tmp_path, "first")
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef")
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "lhttp.toml").write_text(ADMIN)
    plain, tls = "tcp:0:interface=127.0.0.1:backlog=99", "ssl:0:interface=127.0.0.1:privateKey=key.pem:certKey=cert.pem"
    admin = ("--config", "lhttp.toml", "--admin", tls if kind == "admin" else "0")
    options = {"proxy": (), "admin": admin, "grpc": (*admin, "--grpc", tls)}[kind]
    server = serve(*options, *workers, listen=("--listen", f"haproxy:{tls}" if kind == "proxy" else plain))
    where = {"proxy": "listening on", "admin": "admin side on", "grpc": "gRPC side on"}[kind]
    wait_until(lambda: re.search(rf"{where} 127\.0\.0\.1:\d+", server.log), "it listens")
    found = re.search(rf"{where} 127\.0\.0\.1:(\d+)", server.log)
    assert found is not None
    port = int(found[1])
    wait_until(lambda: shown_or_none(port) == "first", "it serves")
    if workers:
        server.wait_for_log("clients: anybody", 2)
    write_certificate(tmp_path, "second")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: shown_or_none(port) == "second", "it shows the new certificate")
    write_certificate(tmp_path, "third", with_key=False)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("stays as it was")
    assert name_shown(port) == "second"


def test_the_headers_for_the_collector_of_traces_are_read_again(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="OpenTelemetry is missing (the extra otel)")
    collector = Collector()
    try:
        path = tmp_path / "headers"
        path.write_text("x-key: 0123456789abcdef-old\n")
        path.chmod(0o600)
        server = serve("--trace", collector.url, "--trace-ratio", "1", "--trace-headers-file", "headers")

        def keys() -> set[str]:
            count = len(collector.headers)
            assert http_request(server.port, "POST", "/publish", BODY)[0] == 200
            wait_until(lambda: len(collector.headers) > count, "the span came")
            return {headers["x-key"] for headers in collector.headers[count:]}

        assert keys() == {"0123456789abcdef-old"}
        path.write_text("x-key: 0123456789abcdef-new\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("SIGHUP: renewed: headers for the collector (headers)")
        assert keys() == {"0123456789abcdef-new"}
        path.write_text("no colon\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("SIGHUP: headers for the collector (headers) stays as it was: ")
        assert keys() == {"0123456789abcdef-new"}
        assert "0123456789abcdef" not in server.log
    finally:
        collector.stop()


def publish(port: int, token: str) -> int:
    return http_request(port, "POST", "/publish", BODY, {"Authorization": f"Bearer {token}"})[0]


def test_a_rotated_token_is_the_only_one_and_nobody_is_closed(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    path = tmp_path / "token"
    old, new = "0123456789abcdef-old", "0123456789abcdef-new"
    path.write_text(old)
    server = serve("--publish-token-file", "token")
    with RawClient(server.port) as client:
        client.subscribe("room")
        assert publish(server.port, old) == 200
        path.write_text(new)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("SIGHUP: renewed: publish token (token)")
        assert (publish(server.port, old), publish(server.port, new)) == (401, 200)
        path.write_text("")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("SIGHUP: publish token (token) stays as it was: ")
        assert publish(server.port, new) == 200
        assert [client.receive()[1].endswith(b"hi") for _ in range(3)] == [True] * 3
    assert old not in server.log and new not in server.log


def test_a_replaced_key_of_tokens_counts_and_clients_of_the_old_one_stay(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    old, new = "o" * 40, "n" * 40
    path.write_text(old)
    server = serve("--jwt-key-file", "secret")
    claims = {"sub": "jack", "exp": 4_000_000_000}

    def headers(key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {jwt.encode(claims, key, 'HS256')}"}

    with open_client(server.port, additional_headers=headers(old)) as client:
        path.write_text(new)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("SIGHUP: renewed: keys of tokens (secret)")
        with open_client(server.port, additional_headers=headers(new)):
            pass
        with pytest.raises(Exception, match="401"), open_client(server.port, additional_headers=headers(old)):
            pass
        client.send(message("chat", {"subscribe": "room", "receipt": "1"}))
        assert "receipt-id:1" in str(client.recv(TIME_LIMIT))


@needs_nats
def test_a_node_connects_to_nats_with_the_password_of_now(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("old")
    nats = NATSProcess("--user", "lhttp", "--pass", "old")
    try:
        server = serve("--nats", nats.url, "--nats-user", "lhttp", "--nats-password-file", "password")
        server.wait_for_log("connected to NATS")
        with RawClient(server.port) as client:
            path.write_text("new")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log("SIGHUP: renewed: credentials for NATS (password)")
            nats.kill()
            nats._arguments[nats._arguments.index("old")] = "new"
            nats.start()
            server.wait_for_log("connected to NATS", count=2)
            client.subscribe("room")
    finally:
        server.stop()
        nats.stop()


@needs_nats
def test_every_worker_reads_the_token_again(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef-old")
    nats = NATSProcess()
    try:
        server = serve("--workers", "2", "--nats", nats.url, "--publish-token-file", "token", endpoints=2)
        server.wait_for_log("connected to NATS", count=2)
        (tmp_path / "token").write_text("0123456789abcdef-new")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("SIGHUP: renewed: publish token (token)", count=2)
        assert publish(server.port, "0123456789abcdef-new") == 200
        server.stop()
    finally:
        nats.stop()


def test_each_renewal_is_told_in_one_line_and_one_that_fails_harms_no_other() -> None:
    told: list[str] = []

    def observe(event: dict[str, object]) -> None:
        told.append(str(event.get("log_format")).format(**event))

    used: list[str] = []
    values = iter(["new", "new", "newer"])
    renewal = Renewal()

    def fail() -> bool:
        raise ValueError("it is empty")

    renewal.add("bad", fail)
    renewal.add_value("good", lambda: next(values), used.append, "old")
    renewal.add("other", lambda: False)
    globalLogPublisher.addObserver(observe)
    try:
        for _ in range(3):
            assert renewal.renew()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert used == ["new", "newer"]
    bad = "SIGHUP: bad stays as it was: it is empty"
    renewed, same = "SIGHUP: renewed: good; unchanged: other", "SIGHUP: unchanged: good, other"
    assert told == [bad, renewed, bad, same, bad, renewed]
    assert not Renewal().renew()
