"""What a session knows of how its client opened the connection: for those who ask, when they may."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import alsoProvides, implementer

from lhttp_tx import HeaderFilter
from lhttp_tx.engine.session import Session
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.web.websocket import WebSocketResource
from unit.transports.websocket.test_protocol import HANDSHAKE, Peer, Transport

TARGET = HANDSHAKE.replace(b"/echo", b"/a%%20b?token=secret")


class Curious(HeaderFilter):
    def __init__(self, asks: bool = True, waiting: Deferred[None] | None = None) -> None:
        self.asks, self.waiting, self.told = asks, waiting, []  # type: ignore[var-annotated]

    def on_connect(self, session: Session) -> Deferred[None] | None:
        if self.asks:
            self.told.append(session.handshake)
        return self.waiting


def opened(clock: Clock, *filters: HeaderFilter, user: str | None = None) -> Any:
    peer = Peer(LHTTPServerFactory(engine=Server(filters=filters).engine, reactor=clock))
    peer.protocol.user = user
    peer.protocol.dataReceived(TARGET % b"Cookie: a=b\r\n")
    return peer.protocol.session


def test_who_asks_at_the_opening_learns_it_and_it_is_kept(clock: Clock) -> None:
    curious = Curious()
    session = opened(clock, Curious(asks=False), curious, user="alice")
    (told,) = curious.told
    assert (told.path, told.query, told.headers["cookie"]) == ("/a%20b", "token=secret", "a=b")
    assert (told.certificate, told.user) == (None, "alice")
    assert session.handshake is told
    assert "secret" not in repr(told)


@pytest.mark.parametrize("filters", [(), (Curious(asks=False),)])
def test_what_nobody_asks_for_is_not_kept(clock: Clock, filters: tuple[HeaderFilter, ...]) -> None:
    session = opened(clock, *filters)
    assert session._handshake is None
    with pytest.raises(LookupError, match="on_connect"):
        _ = session.handshake


def test_it_is_there_as_long_as_the_opening_takes(clock: Clock) -> None:
    slow = Curious(asks=False, waiting=Deferred())
    session = opened(clock, slow)
    assert session._handshake is not None
    assert slow.waiting is not None
    slow.waiting.callback(None)
    assert session._handshake is None


def test_a_certificate_is_told_as_it_was_shown(clock: Clock) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
    now = datetime.now(UTC)
    shown = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(hours=1)).sign(
        key, hashes.SHA256()
    )
    curious = Curious()
    peer = Peer(LHTTPServerFactory(engine=Server(filters=[curious]).engine, reactor=clock))
    transport: Any = peer.transport
    transport.getPeerCertificate = lambda: X509.from_cryptography(shown)
    alsoProvides(transport, ISSLTransport)
    peer.open()
    assert curious.told[0].certificate == shown.public_bytes(serialization.Encoding.DER)


@implementer(IRealm)
class Realm:
    """Has a resource for each user."""

    def __init__(self, factory: LHTTPServerFactory) -> None:
        self.factory = factory

    def requestAvatar(self, name: Any, mind: object, *interfaces: object) -> Any:
        return IResource, WebSocketResource(self.factory, user=name.decode()), lambda: None


def test_the_user_of_a_guard_around_the_resource_is_told(clock: Clock) -> None:
    curious = Curious()
    factory = LHTTPServerFactory(engine=Server(filters=[curious]).engine, reactor=clock)
    checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")
    guarded = HTTPAuthSessionWrapper(Portal(Realm(factory), [checker]), [BasicCredentialFactory(b"lhttp")])
    channel: Any = Site(guarded, reactor=clock).buildProtocol(None)
    transport: Any = Transport()
    channel.makeConnection(transport)
    transport.protocol = channel
    channel.dataReceived(HANDSHAKE % b"Authorization: Basic YWxpY2U6c2VjcmV0\r\n")
    clock.advance(1)
    assert [told.user for told in curious.told] == ["alice"]
