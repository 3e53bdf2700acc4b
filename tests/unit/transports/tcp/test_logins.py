"""lhttp_tx.transports.tcp.protocol: logins, which a plain stream can carry in messages only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import X509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from zope.interface import directlyProvides

from lhttp_tx import Authenticator, Refused
from lhttp_tx.auth.attempts import LoginAttempt
from unit.transports.tcp._stack import Stack

pytestmark = pytest.mark.usefixtures("clock")

LOGIN = b"LHTTP/1.0 login\r\ntoken:good\r\n\r\n"
PING = b"LHTTP/1.0 ping\r\nreceipt:1\r\n\r\n"


class Tokens(Authenticator):
    """Knows a token, and addresses."""

    def __init__(self) -> None:
        self.waiting: Deferred[Any] = Deferred()
        self.attempts: list[LoginAttempt] = []

    def authenticate(self, attempt: LoginAttempt) -> Any:
        self.attempts.append(attempt)
        if attempt.message is None:
            if "198.51.100.1" in attempt.address:
                return attempt.identify("device")
            if "198.51.100.2" in attempt.address:
                raise Refused(403, "not you")
            if "198.51.100.3" in attempt.address:
                return self.waiting.addCallback(lambda _: attempt.identify("late"))
            if "198.51.100.4" in attempt.address:
                raise RuntimeError("a mistake")
            return None
        if attempt.token == "good":
            return attempt.identify("alice")
        raise Refused(401, "wrong token")


def test_a_client_logs_in_with_its_first_message() -> None:
    stack = Stack(authenticators=[Tokens()])
    peer = stack.connect()
    peer.send(LOGIN, PING)
    assert peer.told() == [("login", {"user": "alice"}), ("receipt", {"receipt-id": "1"})]
    (session,) = stack.server.engine.sessions
    assert session.identity.user == "alice"


def test_before_it_nothing_else_is_taken() -> None:
    stack = Stack(authenticators=[Tokens()])
    peer, other = stack.connect("198.51.100.1"), stack.connect()
    peer.subscribe("room")
    other.send(b"LHTTP/1.0 chat\r\npublish:room\r\n\r\nx")
    assert [told["status"] for _, told in other.told()] == ["401"]
    assert peer.take() == []


def test_there_is_a_time_for_it() -> None:
    stack = Stack(authenticators=[Tokens()])
    peer = stack.connect()
    peer.protocol.dataReceived(b"0\n")
    stack.clock.advance(5)
    assert [told["code"] for _, told in peer.told()] == ["4408"]
    stack = Stack(authenticators=[Tokens()], login_timeout=20.0)
    peer = stack.connect()
    peer.protocol.dataReceived(b"0\n")
    stack.clock.advance(19)
    assert not peer.closed
    stack.clock.advance(1)
    assert [told["code"] for _, told in peer.told()] == ["4408"]


def test_failed_logins_end_it() -> None:
    peer = Stack(authenticators=[Tokens()]).connect()
    peer.send(*[b"LHTTP/1.0 login\r\ntoken:bad\r\n\r\n"] * 3)
    assert [told.get("status") or told["code"] for _, told in peer.told()] == ["401", "401", "401", "1008"]


def test_an_authenticator_may_know_the_address(failures: list[Any]) -> None:
    authenticator = Tokens()
    stack = Stack(authenticators=[authenticator])
    peer, refused, broken = (stack.connect(f"198.51.100.{number}") for number in (1, 2, 4))
    peer.send(PING)
    refused.send(PING)
    assert [command for command, _ in peer.told()] == ["receipt"]
    assert [told.get("status") or told["code"] for _, told in refused.told()] == ["403", "1008"]
    broken.send(PING)
    assert len(failures) == 1
    assert [told.get("status") or told["code"] for _, told in broken.told()] == ["500", "1011"]
    assert [(found.path, found.headers, found.secure) for found in authenticator.attempts] == [("", {}, False)] * 3


def test_what_comes_while_an_authenticator_is_asked_waits() -> None:
    authenticator = Tokens()
    stack = Stack(authenticators=[authenticator])
    peer = stack.connect("198.51.100.3")
    peer.send(PING)
    assert peer.transport.producerState == "paused"
    peer.send(PING)
    authenticator.waiting.callback(None)
    assert [command for command, _ in peer.told()] == ["receipt", "receipt"]
    assert peer.transport.producerState == "producing"


@pytest.mark.parametrize("how", ["end", "drain", "late"])
def test_an_answer_that_comes_too_late_opens_nothing(how: str) -> None:
    authenticator = Tokens()
    stack = Stack(authenticators=[authenticator])
    peer = stack.connect("198.51.100.3")
    peer.send(PING)
    if how == "end":
        peer.end()
    elif how == "drain":
        stack.factory.draining = True
        authenticator.waiting.callback(None)
        assert [told.get("status") or told["code"] for _, told in peer.told()] == ["503", "1001"]
    else:
        stack.clock.advance(6)
        assert [told.get("status") or told["code"] for _, told in peer.told()] == ["503", "1013"]
    assert not stack.server.engine.sessions


def test_anonymous_clients_come_in_where_they_may() -> None:
    peer = Stack(authenticators=[Tokens()], allow_anonymous=True).connect()
    peer.send(PING, LOGIN)
    assert [command for command, _ in peer.told()] == ["receipt", "login"]


def test_one_that_has_said_all_gets_the_answer_to_its_login() -> None:
    authenticator = Tokens()
    stack = Stack(authenticators=[authenticator])
    peer = stack.connect()
    peer.send(LOGIN, PING)
    peer.protocol.readConnectionLost()
    assert [command for command, _ in peer.told()] == ["login", "receipt", "close"]


def test_an_authenticator_sees_the_certificate_that_a_device_has_shown() -> None:
    class Certificates(Authenticator):
        def authenticate(self, attempt: LoginAttempt) -> Any:
            return None if attempt.certificate is None else attempt.identify(f"device {len(attempt.certificate)}")

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])
    now = datetime.now(UTC)
    shown = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(hours=1)).sign(
        key, hashes.SHA256()
    )
    stack = Stack(authenticators=[Certificates()])
    device, other = stack.connect(), stack.connect()
    for peer, found in ((device, X509.from_cryptography(shown)), (other, None)):
        directlyProvides(peer.transport, ISSLTransport)
        peer.transport.getPeerCertificate = lambda found=found: found
        peer.send(PING)
    size = len(shown.public_bytes(serialization.Encoding.DER))
    assert [session.identity.user for session in stack.server.engine.sessions] == [f"device {size}"]
    assert [command for command, _ in device.told()] == ["receipt"]
    assert [told["status"] for _, told in other.told()] == ["401"]
