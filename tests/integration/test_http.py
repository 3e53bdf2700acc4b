"""HTTP on the same port: every status of the protocol document's section "HTTP", and who may come in."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import which
from subprocess import run

import pytest
from websockets.exceptions import InvalidStatus

from integration._server import (
    TEXT,
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    client_frame,
    handshake_head,
    http_request,
    message,
    open_client,
    processor_arguments,
    recv_bytes,
    wait_until,
)
from lhttp_tx.codec.protobuf_view import decode_protobuf

TOKEN = "a secret of more than sixteen bytes, with é"
GOOD = message("chat", {"publish": "room"}, "hello")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that asks for a token, with a list of origins and of names."""
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "token").write_text(TOKEN + "\n", encoding="utf-8")
    process = ServerProcess(
        *("--publish-token-file", "token", "--allow-origin", "https://app.example"),
        *(
            "--server-name",
            "chat.example",
        ),
        cwd=directory,
    )
    yield process
    process.check()


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on all interfaces that lets pages of every site in."""
    process = ServerProcess("--allow-origin", "*", cwd=tmp_path_factory.mktemp("open"), listen=["--port", "tcp:0"])
    yield process
    process.check()


def own_address() -> str:
    """Return an address of this machine that is not on the loopback interface; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but the loopback ones")
        address: str = sock.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has no address but the loopback ones")
    return address


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries *token*, as bytes of UTF-8."""
    return {"Authorization": f"Bearer {token}".encode().decode("latin-1")}


# POST /publish


def test_publishing_is_answered_with_the_channels(server: ServerProcess) -> None:
    status, headers, body = http_request(
        server.port, "POST", "/publish", message("chat", {"publish": "a b", "PUBLISH": "c"})
    )
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {"channels": ["a", "b", "c"]}


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_published_message_reaches_subscribers_less_the_headers_for_the_server(
    server: ServerProcess, binary: bool
) -> None:
    kind = {"Content-Type": "application/octet-stream"} if binary else {}
    posted = message("chat", {"receipt": "1", "publish": "less", "x": "é"}, "é")
    with open_client(server.port) as client:
        client.send(message("chat", {"subscribe": "less", "receipt": "in"}))
        client.recv(TIME_LIMIT)
        assert http_request(server.port, "POST", "/publish", posted, kind)[0] == 200
        assert recv_bytes(client) == (message("chat", {"publish": "less", "x": "é"}, "é").encode("utf-8"), binary)


def test_posted_bytes_that_are_no_text_are_published_in_binary(server: ServerProcess) -> None:
    posted = message("chat", {"publish": "bytes"}).encode("ascii") + b"\xff\x00"
    with open_client(server.port) as client:
        client.send(message("chat", {"subscribe": "bytes", "receipt": "in"}))
        client.recv(TIME_LIMIT)
        assert http_request(server.port, "POST", "/publish", posted)[0] == 200
        assert recv_bytes(client) == (posted, True)


JSON_TYPE, PROTOBUF_TYPE = "application/json", "application/x-protobuf"
JSON_GOOD = '{"COMMAND":"chat","HEADERS":{"publish":"views"},"BODY":"hé"}'
PROTOBUF_GOOD = b'\x12\x04chat\x1a\x10\x0a\x07publish\x12\x05views"\x03h\xc3\xa9'


@pytest.mark.parametrize(
    ("kind", "body", "binary"),
    [
        (JSON_TYPE, JSON_GOOD, False),
        ("Application/JSON; charset=utf-8", JSON_GOOD, False),
        (JSON_TYPE, JSON_GOOD.replace('"BODY":"hé"', '"BODY_BASE64":"aMOp"'), True),
        (PROTOBUF_TYPE, PROTOBUF_GOOD, False),
        ("application/protobuf", PROTOBUF_GOOD + b"\x30\x01", True),
    ],
)
def test_posted_views_are_published(server: ServerProcess, kind: str, body: str | bytes, binary: bool) -> None:
    with open_client(server.port) as client:
        client.send(message("x", {"subscribe": "views", "receipt": "1"}))
        client.recv(TIME_LIMIT)
        status, headers, answer = http_request(server.port, "POST", "/publish", body, {"Content-Type": kind})
        assert (status, headers["content-type"], json.loads(answer)) == (200, JSON_TYPE, {"channels": ["views"]})
        assert recv_bytes(client) == (message("chat", {"publish": "views"}, "hé").encode(), binary)


@pytest.mark.parametrize(
    ("kind", "body", "status", "reason"),
    [
        (JSON_TYPE, "no JSON", 400, "malformed"),
        (JSON_TYPE, '{"COMMAND":"chat","BODY":{}}', 400, "BODY is not a string"),
        (JSON_TYPE, "[" * 60_000, 413, "brackets"),
        (JSON_TYPE, '{"COMMAND":"chat"}', 400, "publish"),
        (JSON_TYPE, '{"COMMAND":"chat","HEADERS":{"publish":"$x"}}', 403, "$x"),
        (PROTOBUF_TYPE, "no message", 400, ""),
        ("text/plain", JSON_GOOD, 400, "no CRLF ends the head"),
    ],
)
def test_posted_views_that_are_wrong_are_refused(
    server: ServerProcess, kind: str, body: str, status: int, reason: str
) -> None:
    found, headers, answer = http_request(server.port, "POST", "/publish", body, {"Content-Type": kind})
    assert (found, headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert reason in answer.decode()


@pytest.mark.parametrize(
    ("accept", "good", "bad"),
    [
        ("*/*", JSON_TYPE, "text/plain; charset=utf-8"),
        ("text/html, application/xml;q=0.9", JSON_TYPE, "text/plain; charset=utf-8"),
        (JSON_TYPE, JSON_TYPE, JSON_TYPE),
        ("text/html, Application/JSON ; q=0.5", JSON_TYPE, JSON_TYPE),
        ("application/json;q=0, */*", JSON_TYPE, "text/plain; charset=utf-8"),
        (PROTOBUF_TYPE, PROTOBUF_TYPE, PROTOBUF_TYPE),
        ("application/json;q=0.4, application/protobuf;q=0.6", PROTOBUF_TYPE, PROTOBUF_TYPE),
        (", ".join(["a/b"] * 500), JSON_TYPE, "text/plain; charset=utf-8"),
    ],
)
def test_accept_chooses_the_form_of_the_answer(server: ServerProcess, accept: str, good: str, bad: str) -> None:
    answers = [http_request(server.port, "POST", "/publish", body, {"Accept": accept}) for body in (GOOD, "wrong")]
    assert [(status, headers["content-type"]) for status, headers, _ in answers] == [(200, good), (400, bad)]
    if good == PROTOBUF_TYPE:
        assert decode_protobuf(answers[0][2])[0] == b"LHTTP/1.0 receipt\r\npublish:room\r\n\r\n"
        reason = b"no CRLF ends the head"
        assert decode_protobuf(answers[1][2])[0] == b"LHTTP/1.0 error\r\nstatus:400\r\nreason:%s\r\n\r\n" % reason
    elif bad == JSON_TYPE:
        assert json.loads(answers[1][2]) == {"status": 400, "reason": "no CRLF ends the head"}


@pytest.mark.parametrize("kind", [JSON_TYPE, PROTOBUF_TYPE])
def test_views_of_a_page_of_another_site_are_refused(server: ServerProcess, kind: str) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        asked = http_request(server.port, "POST", "/publish", JSON_GOOD, {"Content-Type": kind, **headers})
        assert asked[0] == 403
        preflight = http_request(server.port, "OPTIONS", "/publish", headers=headers)
        assert preflight[0] == 405
        assert not any(name.startswith("access-control") for name in (*asked[1], *preflight[1]))


def test_published_message_is_not_processed(server: ServerProcess) -> None:
    assert http_request(server.port, "POST", "/publish", message("boom", {"publish": "room"}))[0] == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_publishing_with_another_method_is_405(server: ServerProcess, method: str) -> None:
    status, headers, body = http_request(server.port, method, "/publish")
    assert (status, headers["allow"]) == (405, "POST")
    assert bool(body) == (method != "HEAD")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        bearer(TOKEN[:-1]),
        bearer(TOKEN + "x"),
        bearer("é"),
        {"Authorization": "Bearer \xff\xfe"},
        {"Authorization": bearer(TOKEN)["Authorization"].replace("Bearer", "Basic")},
        {"Cookie": f"token={TOKEN[:16]}"},
    ],
    ids=["none", "empty", "bare", "wrong", "short", "long", "non-ascii", "not-utf8", "basic", "cookie"],
)
def test_publishing_without_the_token_is_401(guarded: ServerProcess, headers: dict[str, str]) -> None:
    status, answered, body = http_request(guarded.port, "POST", "/publish", GOOD, headers)
    assert (status, answered["www-authenticate"]) == (401, "Bearer")
    assert body == b"a valid token is needed: Authorization: Bearer TOKEN\n"


def test_publishing_with_the_token_is_200(guarded: ServerProcess) -> None:
    assert http_request(guarded.port, "POST", "/publish", GOOD, bearer(TOKEN))[0] == 200


def test_token_may_come_through_a_proxy_and_from_elsewhere(guarded: ServerProcess) -> None:
    elsewhere = {"X-Forwarded-For": "203.0.113.5", "Origin": "https://any.example", "Host": "chat.example"}
    assert http_request(guarded.port, "POST", "/publish", GOOD, bearer(TOKEN) | elsewhere)[0] == 200


def test_token_of_the_environment_is_asked_for(serve: Callable[..., ServerProcess]) -> None:
    server = serve(environment={"LHTTP_PUBLISH_TOKEN": "another secret of some bytes"})
    assert http_request(server.port, "POST", "/publish", GOOD)[0] == 401
    assert http_request(server.port, "POST", "/publish", GOOD, bearer("another secret of some bytes"))[0] == 200


def test_token_is_not_logged(guarded: ServerProcess) -> None:
    http_request(guarded.port, "POST", "/publish", GOOD, bearer(TOKEN))
    assert "secret of more" not in guarded.log


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-Forwarded-For": "203.0.113.5"},
        {"Forwarded": "for=203.0.113.5"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8081"},
        {"Host": "192.0.2.7"},
    ],
    ids=lambda headers: ":".join(*headers.items()),
)
@pytest.mark.parametrize("where", ["server", "open_to_all"])
def test_publishing_for_a_stranger_without_a_token_is_403(
    request: pytest.FixtureRequest, where: str, headers: dict[str, str]
) -> None:
    server: ServerProcess = request.getfixturevalue(where)
    status, _, body = http_request(server.port, "POST", "/publish", GOOD, headers)
    assert status == 403
    assert b"the operator can" in body


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "localhost"},
        {"Host": "LOCALHOST:1"},
        {"Host": "[::1]:8081"},
        {"Host": "127.0.0.1"},
    ],
    ids=lambda headers: ":".join(*headers.items()),
)
def test_publishing_on_this_machine_is_200(server: ServerProcess, headers: dict[str, str]) -> None:
    assert http_request(server.port, "POST", "/publish", GOOD, headers)[0] == 200


def test_publishing_from_another_address_is_403(open_to_all: ServerProcess) -> None:
    with socket.create_connection((own_address(), open_to_all.port), TIME_LIMIT) as sock:
        sock.sendall(
            b"POST /publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
            % (len(GOOD), GOOD.encode("ascii"))
        )
        answer = sock.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"only programs on the server's machine may publish" in answer


@pytest.mark.parametrize("host", ["", "user@localhost", "localhost/x", "localhost:port", "[::1"])
def test_malformed_host_is_400(server: ServerProcess, host: str) -> None:
    assert http_request(server.port, "POST", "/publish", GOOD, {"Host": host})[0] == 400


def test_missing_host_is_400(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(b"POST /publish HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD.encode("ascii")))
        assert b" 400 " in sock.makefile("rb").readline()


# /health


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
def test_health_with_another_method_is_405_and_names_no_software(server: ServerProcess, method: str) -> None:
    status, headers, body = http_request(server.port, method, "/health?<x>")
    assert (status, headers["allow"], body) == (405, "GET, HEAD", b"use GET\n")
    assert "server" not in headers


def test_head_of_health_has_no_body_and_costs_no_line_in_the_log(server: ServerProcess) -> None:
    assert http_request(server.port, "HEAD", "/health")[::2] == (200, b"")
    assert "HEAD request" not in server.log


# 413


def test_largest_message_is_published(server: ServerProcess) -> None:
    posted = message("chat", {"publish": "room"})
    posted += "x" * (65_536 - len(posted))
    assert http_request(server.port, "POST", "/publish", posted)[0] == 200
    assert http_request(server.port, "POST", "/publish", posted + "x")[0] == 413


def _post_head(*headers: str) -> bytes:
    lines = ["POST /publish HTTP/1.1", "Host: localhost", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def test_declared_length_past_the_limit_is_413_before_the_body(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(_post_head("Content-Length: 300000000"))
        answer = sock.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"\r\n\r\nbody is larger than 65536 bytes\n")


def test_declared_length_of_too_many_digits_is_400(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(_post_head("Content-Length: " + "9" * 5_000))
        assert sock.makefile("rb").read() == b"HTTP/1.1 400 Bad Request\r\n\r\n"


def test_chunks_past_the_limit_are_413(server: ServerProcess) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(_post_head("Transfer-Encoding: chunked") + chunk * 4)
        sock.sendall(chunk)
        answer = sock.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_chunked_message_is_published(server: ServerProcess) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, GOOD[index : index + 1].encode("ascii")) for index in range(len(GOOD)))
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(_post_head("Transfer-Encoding: chunked", "Connection: close") + chunks + b"0\r\n\r\n")
        assert sock.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


def test_huge_body_is_not_kept_in_memory(server: ServerProcess) -> None:
    before = server.resident_size()
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        answers = sock.makefile("rb")
        sock.sendall(_post_head("Transfer-Encoding: chunked"))
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        try:
            while sent < 300_000_000:
                sock.sendall(chunk)
                sent += 0x10000
        except ConnectionError:
            pass
        else:
            assert answers.readline().startswith(b"HTTP/1.1 413 ")
    assert server.resident_size() - before < 20_000_000
    assert http_request(server.port, "POST", "/publish", GOOD)[0] == 200


@pytest.mark.skipif(which("curl") is None, reason="curl is not installed")
def test_curl_reads_why_its_file_is_too_large(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    url = f"http://127.0.0.1:{server.port}/publish"
    curl = run(
        ["curl", "-sS", "--noproxy", "*", "--data-binary", "@large", "-w", "%{http_code}", url],
        cwd=tmp_path,
        capture_output=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    assert curl.stdout == b"body is larger than 65536 bytes\n413"


# The rest of the tree


def test_health_says_that_the_server_serves(server: ServerProcess) -> None:
    status, headers, body = http_request(server.port, "GET", "/health")
    assert (status, headers["content-type"], json.loads(body)) == (200, "application/json", {"status": "ok"})


def test_health_has_no_other_method(server: ServerProcess) -> None:
    assert http_request(server.port, "POST", "/health")[0] == 405


@pytest.mark.parametrize("path", ["/", "/echo", "/a/b/c?d=e", "/publisher", "/%00"])
def test_get_is_answered_with_426(server: ServerProcess, path: str) -> None:
    status, headers, body = http_request(server.port, "GET", path)
    assert (status, headers["upgrade"]) == (426, "websocket")
    assert body == b"this is a WebSocket endpoint that speaks LHTTP/1.0\n"


@pytest.mark.parametrize("path", ["/", "/publish", "/x"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "BREW"])
def test_no_answer_names_the_software(server: ServerProcess, method: str, path: str) -> None:
    _, headers, body = http_request(server.port, method, path)
    text = repr((headers, body)).lower()
    assert "server" not in headers
    assert not [name for name in ("twisted", "autobahn", "python") if name in text]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /\x1b[31mred HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \x1b[31m\r\n\r\n",
        b"\x1b[31m / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n\x1b[31m",
        b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 24\r\n\r\nLHTTP/1.0 \x1b[31m\r\na:b\r\n\r\n",
        handshake_head(80).replace(b"dGhl", b"\x1b[31m"),
        handshake_head(80).replace(b"Version: 13", b"Version: \x1b[31m"),
        handshake_head(80, headers=["Origin: \x1b[31m"]),
        handshake_head(80, headers=["Sec-WebSocket-Extensions: \x1b[31m"]),
        handshake_head(80, headers=["Sec-WebSocket-Protocol: \x1b[31m"]),
        handshake_head(80, path="/\x1b[31m"),
    ],
)
def test_escape_characters_are_not_echoed(server: ServerProcess, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(request_bytes)
        answer = sock.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 ")
    assert b"\x1b" not in answer
    assert "\x1b" not in server.log


# WebSocket handshakes


@pytest.mark.parametrize("path", ["/", "/echo", "/any/path", "/with?query=1", "/publisher", "/%2e%2e/x", "//"])
def test_websocket_is_answered_on_every_path(server: ServerProcess, path: str) -> None:
    with open_client(server.port, path) as client:
        client.send(message("echo", {}, path))
        assert client.recv(TIME_LIMIT) == message("echo", {}, path)


def test_handshake_names_no_software_and_no_extension(server: ServerProcess) -> None:
    with open_client(server.port) as client:
        assert client.response is not None
        headers = {name.lower() for name, _ in client.response.headers.raw_items()}
    assert headers <= {"upgrade", "connection", "sec-websocket-accept"}


def test_messages_sent_in_one_segment_with_the_handshake_arrive(server: ServerProcess) -> None:
    messages = [message("echo", {}, str(number)).encode("ascii") for number in range(3)]
    with RawClient(server.port, with_handshake=b"".join(map(client_frame, messages))) as client:
        assert client.status == 101
        assert [client.receive() for _ in messages] == [(TEXT, sent) for sent in messages]


def test_handshake_that_arrives_in_pieces_is_answered(server: ServerProcess) -> None:
    head = handshake_head(server.port)
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(0, len(head), 7):
            sock.sendall(head[index : index + 7])
            time.sleep(0.001)
        assert sock.recv(100).startswith(b"HTTP/1.1 101 ")


def test_websocket_after_a_request_on_the_same_connection_is_answered(server: ServerProcess) -> None:
    first = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sent = message("echo", {}, "second").encode("ascii")
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(first + handshake_head(server.port) + client_frame(sent))
        received = b""
        while not received.endswith(sent):
            piece = sock.recv(65_536)
            assert piece, received
            received += piece
    assert received.startswith(b"HTTP/1.1 426 ")
    assert b"HTTP/1.1 101 " in received


@pytest.mark.parametrize(
    ("right", "wrong", "status"),
    [
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ=", 400),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 400),
        (b"Connection: Upgrade", b"Connection: keep-alive", 400),
        (b"Host: 127.0.0.1:80\r\n", b"", 400),
        (b"Host: 127.0.0.1:80", b"Host: a:b", 400),
        (b"GET", b"POST", 405),
        (b"HTTP/1.1", b"HTTP/1.0", 505),
    ],
    ids=["no key", "short key", "no version", "no upgrade", "no Host", "bad Host", "POST", "HTTP/1.0"],
)
def test_malformed_handshake_is_refused(server: ServerProcess, right: bytes, wrong: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(handshake_head(80).replace(right, wrong))
        answer = sock.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer


def test_other_websocket_version_is_told_which_one_is_spoken(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(handshake_head(server.port).replace(b"Version: 13", b"Version: 99"))
        answer = sock.makefile("rb").read()
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 426 "))
    assert b"13" in answer


OWN, STRANGE, NULL = "http://127.0.0.1:3000", "https://evil.example", "null"


@pytest.mark.parametrize(
    ("where", "origin", "status"),
    [
        ("server", None, 101),
        ("server", "http://127.0.0.1", 101),
        ("server", OWN, 101),
        ("server", "https://127.0.0.1:1", 101),
        ("server", STRANGE, 403),
        ("server", NULL, 403),
        ("server", "", 400),
        ("server", "http://localhost", 403),
        ("server", "file://", 403),
        ("server", "http://127.0.0.1.evil.example", 403),
        ("server", "http://127.0.0.1@evil.example", 403),
        ("server", "chrome-extension://127.0.0.1", 403),
        ("guarded", "https://app.example", 101),
        ("guarded", "HTTPS://APP.EXAMPLE", 101),
        ("guarded", "http://app.example", 403),
        ("guarded", "https://app.example:8443", 403),
        ("guarded", "https://app.example.evil.example", 403),
        ("guarded", NULL, 403),
        ("guarded", OWN, 101),
        ("open_to_all", STRANGE, 101),
        ("open_to_all", NULL, 101),
        ("open_to_all", "", 400),
    ],
)
def test_origin_decides_about_browsers(
    request: pytest.FixtureRequest, where: str, origin: str | None, status: int
) -> None:
    server: ServerProcess = request.getfixturevalue(where)
    headers = [] if origin is None else [f"Origin: {origin}"]
    with RawClient(server.port, headers=headers) as client:
        assert client.status == status


def test_refused_origin_is_told_why(server: ServerProcess) -> None:
    with pytest.raises(InvalidStatus) as refused, open_client(server.port, origin=STRANGE):
        pass
    assert refused.value.response.status_code == 403
    assert refused.value.response.body == b"this Origin is not allowed; the operator can add it with --allow-origin\n"


@pytest.mark.parametrize(
    ("where", "host", "status"),
    [
        ("server", "localhost", 101),
        ("server", "LocalHost.:9", 101),
        ("server", "[::1]", 101),
        ("server", "127.8.9.10:80", 101),
        ("server", "rebound.example", 403),
        ("server", "10.0.0.1", 403),
        ("guarded", "chat.example", 101),
        ("guarded", "CHAT.example:443", 101),
        ("guarded", "other.example", 403),
        ("guarded", "localhost", 101),
        ("open_to_all", "any.example", 101),
    ],
)
def test_host_decides_about_names_that_resolve_to_this_machine(
    request: pytest.FixtureRequest, where: str, host: str, status: int
) -> None:
    server: ServerProcess = request.getfixturevalue(where)
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(handshake_head(80).replace(b"Host: 127.0.0.1:80", f"Host: {host}".encode()))
        assert int(sock.makefile("rb").readline().split()[1]) == status


def test_page_of_a_rebound_name_is_403(server: ServerProcess) -> None:
    """Its Origin names the host that it connects to, so only the Host rule stops it."""
    head = handshake_head(80, headers=["Origin: http://rebound.example"])
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        sock.sendall(head.replace(b"Host: 127.0.0.1:80", b"Host: rebound.example"))
        assert int(sock.makefile("rb").readline().split()[1]) == 403


def test_connections_past_the_limit_are_503(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--max-connections", "2")
    with ExitStack() as stack:
        first, _ = (stack.enter_context(RawClient(server.port)) for _ in range(2))
        for _ in range(3):
            with RawClient(server.port) as refused:
                assert refused.status == 503
        assert http_request(server.port, "POST", "/publish", GOOD)[0] == 200
        first.close()

        def comes_in() -> bool:
            with RawClient(server.port) as client:
                return client.status == 101

        wait_until(comes_in, "there is room again")


# Time


@pytest.mark.parametrize("flood", [b"x" * 1000, b"a: b\r\n" * 100], ids=["one line", "many lines"])
def test_endless_head_is_cut(server: ServerProcess, flood: bytes) -> None:
    before, sent = server.resident_size(), 0
    with (
        socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock,
        pytest.raises(ConnectionError),
    ):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        while sent < 30_000_000:
            sent += sock.send(flood)
    assert server.resident_size() - before < 5_000_000


def test_handshake_that_drips_is_ended(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--handshake-timeout", "0.5")
    head = handshake_head(server.port).replace(b"\r\n\r\n", b"\r\nX-More: ") + b"x" * 10_000
    with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
        ended = threading.Event()

        def drip() -> None:
            for byte in head:
                if ended.wait(0.05):
                    return
                try:
                    sock.sendall(bytes([byte]))
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert sock.recv(1000) == b""
        except ConnectionError:
            pass
        finally:
            ended.set()
            dripping.join()


def test_peer_that_answers_no_ping_is_dropped(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--ping-interval", "1", "--ping-timeout", "0.3")
    with RawClient(server.port) as client:
        assert client.receive(pings=True)[0] == 9
        with pytest.raises((ConnectionError, AssertionError)):
            while True:
                assert client.receive(pings=True)[0] == 9


def test_peer_that_answers_pings_stays(serve: Callable[..., ServerProcess]) -> None:
    server = serve(*processor_arguments("echo"), "--ping-interval", "1", "--ping-timeout", "600")
    with RawClient(server.port) as client:
        for _ in range(3):  # the next comes when the last was answered
            opcode, payload = client.receive(pings=True)
            assert opcode == 9
            client.send(payload, 10)
        client.send(message("echo"))
        assert client.receive() == (TEXT, message("echo").encode("ascii"))
