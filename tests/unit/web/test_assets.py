"""The files that the server hands to browsers."""

from collections.abc import Iterator

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.server import Site

from lhttp_tx.web.assets import client_assets, demo_assets


class FakeWebSocket(Resource):
    isLeaf = True

    def render(self, request: object) -> bytes:
        return b"a WebSocket"


def ask(path: str, method: str = "GET", *headers: str) -> tuple[int, dict[str, str], bytes]:
    """Ask a site with every asset; return status, headers and body."""
    root = Resource()
    for name, resource in [*client_assets(), *demo_assets(FakeWebSocket())]:
        root.putChild(name, resource)
    site = Site(root, reactor=Clock())
    channel = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    transport = StringTransport()
    channel.makeConnection(transport)
    lines = [f"{method} {path} HTTP/1.1", "Host: server.example", "Connection: close", *headers]
    channel.dataReceived(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
    head, _, body = transport.value().partition(b"\r\n\r\n")
    first, *rest = head.decode("ascii").split("\r\n")
    return int(first.split()[1]), {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in rest}, body


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/lhttp.js", "text/javascript; charset=utf-8"),
        ("/lhttp.mjs", "text/javascript; charset=utf-8"),
        ("/lhttp-http.js", "text/javascript; charset=utf-8"),
        ("/", "text/html; charset=utf-8"),
        ("/chat.js", "text/javascript; charset=utf-8"),
        ("/chat.css", "text/css; charset=utf-8"),
    ],
)
def test_asset_has_its_type_and_may_not_be_taken_for_another(path: str, content_type: str) -> None:
    status, headers, body = ask(path)
    assert status == 200
    assert headers["content-type"] == content_type
    assert headers["x-content-type-options"] == "nosniff"
    assert int(headers["content-length"]) == len(body) > 0
    assert "server" not in headers


def test_asset_that_the_browser_has_is_not_sent_again() -> None:
    _, headers, _ = ask("/lhttp.js")
    assert headers["cache-control"] == "no-cache"
    assert ask("/lhttp.js", "GET", f"If-None-Match: {headers['etag']}")[::2] == (304, b"")
    assert ask("/lhttp.js", "GET", 'If-None-Match: "other"')[0] == 200


def test_head_has_no_body() -> None:
    status, headers, body = ask("/lhttp.js", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_refused(method: str) -> None:
    status, headers, _ = ask("/lhttp.js", method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def policy() -> Iterator[tuple[str, list[str]]]:
    for directive in ask("/")[1]["content-security-policy"].split(";"):
        name, *sources = directive.split()
        yield name, sources


def test_page_may_load_nothing_from_another_host_and_no_inline_code() -> None:
    found = dict(policy())
    assert found["default-src"] == ["'none'"]
    assert found["script-src"] == found["style-src"] == ["'self'"]
    assert {source for sources in found.values() for source in sources} == {"'none'", "'self'", "ws:", "wss:", "data:"}


def test_page_refers_to_no_other_host_and_holds_no_code() -> None:
    page = ask("/")[2].decode("utf-8")
    assert "//" not in page
    assert " style=" not in page
    assert " on" not in "".join(part.split(">")[0] for part in page.split("<"))
    assert "innerHTML" not in ask("/chat.js")[2].decode("utf-8")


def test_only_the_scripts_of_the_client_are_open_to_other_sites() -> None:
    assert ask("/lhttp.mjs")[1]["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in ask("/")[1]


def test_handshake_on_the_address_of_the_page_goes_to_the_websocket() -> None:
    assert ask("/", "GET", "Upgrade: websocket")[2] == b"a WebSocket"
