"""With TLS as a must, a server without it hears nothing: no credentials, no greeting."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from integration._nats import NATSProcess, needs_nats
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from cluster._cluster import pause, until
from cluster.test_cluster_access import KeyPair, authority, written
from cluster.test_link_nats import Owner
from lhttp_tx.errors import BusUnavailable

pytestmark = [needs_nats, pytest.mark.asyncio_reactor]

GREETING: dict[str, Any] = {
    "server_id": "fake",
    "version": "2.15.0",
    "max_payload": 1_048_576,
    "headers": True,
    "auth_required": True,
    "nonce": "bm9uY2Vub25jZW5vbmNl",
    "connect_urls": ["evil.example:4222"],
}


class Plain(Factory):
    """A NATS server without TLS that writes down what it is sent."""

    def __init__(self, **greeting: Any) -> None:
        self.heard = b""
        self.ended = 0
        self.greeting = json.dumps({**GREETING, **greeting}).encode()

    def buildProtocol(self, addr: object) -> Protocol:
        plain = self

        class Connection(Protocol):
            def connectionMade(self) -> None:
                self.transport.write(b"INFO " + plain.greeting + b"\r\n")

            def dataReceived(self, data: bytes) -> None:
                plain.heard += data
                self.transport.write(b"PONG\r\n" * data.count(b"PING"))

            def connectionLost(self, reason: object = None) -> None:
                plain.ended += 1

        return Connection()


async def refused(settings: dict[str, Any], url: str = "tls://127.0.0.1:{port}", **greeting: Any) -> tuple[Plain, str]:
    """Connect to a server without TLS; return it, and why that failed."""
    from twisted.internet import reactor

    from lhttp_tx.bus.nats.opening import open_link
    from lhttp_tx.bus.nats.servers import NATSServers

    plain = Plain(**greeting)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(plain)
    try:
        url = url.format(port=port.getHost().port)
        others = settings.pop("others", ())
        link = await open_link(url, NATSServers((url, *others), **settings), Owner())  # type: ignore[arg-type]
        await link.close(flush=False)
        return plain, ""
    except BusUnavailable as error:
        await until(lambda: plain.ended, 30)
        return plain, error.reason
    finally:
        await port.stopListening()


def credentials(directory: Path) -> str:
    nkeys = pytest.importorskip("nkeys", reason="nkeys is not installed (it comes with lhttp_tx[nats])")
    account, user = KeyPair(nkeys, nkeys.PREFIX_BYTE_ACCOUNT), KeyPair(nkeys, nkeys.PREFIX_BYTE_USER)
    token = account.sign(user, {"type": "user"})
    return written(
        directory,
        "node.creds",
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n",
    )


LOGINS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "nobody": lambda _: {},
    "password": lambda _: {"user": "node", "password": "sesame"},
    "token": lambda _: {"token": "sesame"},
    "credentials file": lambda directory: {"credentials_file": credentials(directory)},
    "password in the URL": lambda _: {"url": "tls://node:sesame@127.0.0.1:{port}"},
    "token in the URL": lambda _: {"url": "tls://sesame@127.0.0.1:{port}"},
}


@pytest.mark.parametrize("login", LOGINS.values(), ids=LOGINS)
@pytest_twisted.ensureDeferred
async def test_a_server_without_tls_is_sent_nothing(login: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    settings = login(tmp_path)
    plain, why = await refused(settings, settings.pop("url", "tls://127.0.0.1:{port}"))
    assert plain.heard == b""
    assert "the server offers no TLS, so nothing was sent to it" in why
    assert "sesame" not in why


@pytest_twisted.ensureDeferred
async def test_options_about_tls_make_it_a_must(tmp_path: Path) -> None:
    authority(tmp_path)("node")
    password = {"user": "node", "password": "sesame"}
    own = {"tls_certificate": str(tmp_path / "node.pem"), "tls_key": str(tmp_path / "node.key")}
    for settings in ({"tls_ca": str(tmp_path / "ca.pem")}, own, {"others": ("tls://127.0.0.1:1",)}):
        plain, why = await refused({**password, **settings}, "nats://127.0.0.1:{port}")
        assert plain.heard == b""
        assert "offers no TLS" in why


@pytest_twisted.ensureDeferred
async def test_a_server_that_says_it_has_tls_and_has_none_is_sent_no_credentials() -> None:
    plain, _ = await refused({"user": "node", "password": "sesame"}, tls_required=True)
    assert b"sesame" not in plain.heard
    assert b"CONNECT" not in plain.heard


@pytest_twisted.ensureDeferred
async def test_without_tls_nothing_changes() -> None:
    plain, why = await refused({"user": "node", "password": "sesame"}, "nats://127.0.0.1:{port}")
    assert why == ""
    assert b"sesame" in plain.heard


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[NATSProcess]]:
    """Two servers of one cluster, with TLS for their clients."""
    authority(tmp_path)("server")
    settings = f'tls {{ cert_file: "{tmp_path / "server.pem"}", key_file: "{tmp_path / "server.key"}" }}'
    path = written(tmp_path, "nats.conf", settings)
    first = NATSProcess("-c", path, cluster=(), start=False)
    second = NATSProcess("-c", path, cluster=(first.route,), start=False)
    processes = [first, second]
    for process in processes:
        process.start()
    yield processes
    for process in processes:
        process.stop()


@pytest_twisted.ensureDeferred
async def test_other_servers_are_learnt_over_tls(pair: list[NATSProcess], tmp_path: Path) -> None:
    from lhttp_tx.bus.nats.opening import open_link
    from lhttp_tx.bus.nats.servers import NATSServers

    url = pair[0].url.replace("nats:", "tls:")
    servers = NATSServers((url,), tls_ca=str(tmp_path / "ca.pem"))
    link = await open_link(url, servers, Owner())  # type: ignore[arg-type]
    await until(lambda: link.other_urls, 30)
    assert link.other_urls == [pair[1].url.replace("nats:", "tls:")]
    await link.close(flush=False)


@pytest_twisted.ensureDeferred
async def test_servers_named_before_tls_do_not_count(tmp_path: Path, pair: list[NATSProcess]) -> None:
    """Somebody between, who cannot read what is encrypted, adds a server of his own to the greeting."""
    from twisted.internet import reactor
    from twisted.protocols.portforward import ProxyFactory, ProxyServer

    from lhttp_tx.bus.nats.opening import open_link
    from lhttp_tx.bus.nats.servers import NATSServers

    class Between(ProxyServer):
        """Passes everything on, with one more name in the greeting."""

        greeted = False

        def setPeer(self, peer: Any) -> None:
            super().setPeer(peer)
            write = self.transport.write

            def meddled(data: bytes) -> None:
                if data.startswith(b"INFO ") and not self.greeted:
                    self.greeted = True
                    told = json.loads(data[5:])
                    told["connect_urls"] = ["evil.example:4222", *told.get("connect_urls", ())]
                    data = b"INFO " + json.dumps(told).encode() + b"\r\n"
                write(data)

            self.transport.write = meddled  # type: ignore[method-assign]

    factory = ProxyFactory("127.0.0.1", pair[0].port)
    factory.protocol = Between
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    url = f"tls://127.0.0.1:{port.getHost().port}"
    link = await open_link(url, NATSServers((url,), tls_ca=str(tmp_path / "ca.pem")), Owner())  # type: ignore[arg-type]
    await until(lambda: link.other_urls, 30)
    assert "evil.example" not in str(link.other_urls)
    await link.close(flush=False)
    await port.stopListening()
    await pause(0)
