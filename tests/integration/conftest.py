"""Fixtures of the integration tests."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from integration._firefox import FIREFOX, Firefox, start_firefox
from integration._server import Backend, ServerProcess, processor_arguments

ALL_PROCESSORS = (
    "echo",
    "deferred",
    "coroutine",
    "boom",
    "boom_later",
    "refuse",
    "wrong",
    "hang",
    "parts",
    "other",
    "veto",
    "rewrite",
    "join",
    "leave",
    "hang_up",
    "Visits",
)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start servers with the options of one test; each is stopped and its log checked at the end."""
    started: list[ServerProcess] = []

    def start(*arguments: str, **options: Any) -> ServerProcess:
        started.append(ServerProcess(*arguments, cwd=tmp_path, **options))
        return started[-1]

    yield start
    for server in started:
        server.check()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests of a module, with the processors of ``_processors.py`` and default options."""
    process = ServerProcess(*processor_arguments(*ALL_PROCESSORS), cwd=tmp_path_factory.mktemp("server"))
    yield process
    process.check()


@pytest.fixture
def backend() -> Iterator[Backend]:
    """A backend of one test."""
    started = Backend()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1 that signs itself."""
    directory = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_file, certificate_file = directory / "key.pem", directory / "cert.pem"
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return key_file, certificate_file


@pytest.fixture(scope="session")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox | None]:
    """A Firefox for all tests; ``None`` where it is not installed."""
    if FIREFOX is None:
        yield None
        return
    with start_firefox(tmp_path_factory.mktemp("firefox")) as started:
        yield started
