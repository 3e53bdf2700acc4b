"""The server as a proxy: a real backend behind the real process."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from integration._server import (
    TIME_LIMIT,
    Backend,
    ServerProcess,
    message,
    open_client,
    processor_arguments,
    recv_bytes,
)

LIMIT = 5.0


@pytest.fixture(scope="module")
def shared_backend() -> Iterator[Backend]:
    """One backend behind :func:`proxy`."""
    started = Backend()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def proxy(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that may reach everything on one backend, and a port where nobody listens."""
    process = ServerProcess(
        *processor_arguments("echo"),
        *("--upstream-allow", shared_backend.url, "--upstream-allow", f"http://127.0.0.1:{unused_port()}/dead"),
        *("--upstream-timeout", str(LIMIT), "--upstream-max-response", "100000"),
        cwd=tmp_path_factory.mktemp("proxy"),
    )
    yield process
    process.check()


def unused_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def ask(server: ServerProcess, upstream: str, body: str = "") -> str | bytes:
    """Send a message upstream and return the receipt or the error."""
    with open_client(server.port) as client:
        client.send(message("chat", {"upstream": upstream, "receipt": "r"}, body))
        answer = client.recv(TIME_LIMIT)
        client.send(message("echo", {}, "the connection lives on"))
        assert client.recv(TIME_LIMIT) == message("echo", {}, "the connection lives on")
    return answer


def error(status: int, reason: str) -> str:
    """Return the error that answers a message with the receipt ``r``."""
    return message("error", {"status": str(status), "reason": reason, "receipt-id": "r"})


def receipt(status: int, body: str) -> str:
    """Return the receipt of a message that went upstream."""
    return message("receipt", {"receipt-id": "r", "upstream-status": str(status)}, body)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_method_with_a_body_sends_the_whole_message(proxy: ServerProcess, shared_backend: Backend, method: str) -> None:
    upstream = f"{method} {shared_backend.url}/record?a=1&b=é".replace("é", "%C3%A9")
    assert ask(proxy, upstream, f"{method} é") == receipt(200, "recorded")
    seen, path, headers, body = shared_backend.requests[-1]
    assert (seen, path) == (method, "/record?a=1&b=%C3%A9")
    assert body.decode("utf-8") == message("chat", {"upstream": upstream, "receipt": "r"}, f"{method} é")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["content-length"] == str(len(body))


def test_get_sends_the_query_and_no_body(proxy: ServerProcess, shared_backend: Backend) -> None:
    assert ask(proxy, f"GET {shared_backend.url}/record?q=1", "ignored") == receipt(200, "recorded")
    seen, path, headers, body = shared_backend.requests[-1]
    assert (seen, path, body) == ("GET", "/record?q=1", b"")
    assert "content-length" not in headers
    assert "content-type" not in headers


def test_binary_message_goes_upstream_as_it_is(proxy: ServerProcess, shared_backend: Backend) -> None:
    sent = message("chat", {"upstream": f"POST {shared_backend.url}/record", "receipt": "r"}).encode() + b"\x00\xff"
    with open_client(proxy.port) as client:
        client.send(sent)
        assert recv_bytes(client) == (receipt(200, "recorded").encode("ascii"), False)
    assert shared_backend.requests[-1][3] == sent
    assert shared_backend.requests[-1][2]["content-type"] == "application/octet-stream"


def test_without_a_receipt_the_response_is_discarded(proxy: ServerProcess, shared_backend: Backend) -> None:
    count = len(shared_backend.requests)
    with open_client(proxy.port) as client:
        client.send(message("chat", {"upstream": f"POST {shared_backend.url}/teapot"}))
        client.send(message("echo", {}, "next"))
        assert client.recv(TIME_LIMIT) == message("echo", {}, "next")
    assert len(shared_backend.requests) == count + 1


def test_status_of_the_backend_is_no_error(proxy: ServerProcess, shared_backend: Backend) -> None:
    assert ask(proxy, f"POST {shared_backend.url}/teapot") == receipt(418, "short and stout")


def test_answer_that_is_no_text_comes_in_a_binary_receipt(proxy: ServerProcess, shared_backend: Backend) -> None:
    assert ask(proxy, f"POST {shared_backend.url}/latin1") == receipt(200, "").encode("ascii") + b"caf\xe9"


def test_publish_and_upstream_work_together(proxy: ServerProcess, shared_backend: Backend) -> None:
    with open_client(proxy.port) as listener, open_client(proxy.port) as sender:
        listener.send(message("chat", {"subscribe": "mike", "receipt": "in"}))
        listener.recv(TIME_LIMIT)
        sent = message("chat", {"upstream": f"POST {shared_backend.url}/record", "publish": "mike"}, "hello mike")
        count = len(shared_backend.requests)
        sender.send(sent)
        assert listener.recv(TIME_LIMIT) == message("chat", {"publish": "mike"}, "hello mike")
        shared_backend.wait_for(count + 1)
        assert shared_backend.requests[-1][3] == sent.encode("ascii")


def test_dead_backend_costs_an_error_and_publishes_all_the_same(proxy: ServerProcess) -> None:
    dead = next(word for word in proxy.process.args if word.endswith("/dead"))  # type: ignore[union-attr]
    with open_client(proxy.port) as client:
        client.send(message("chat", {"subscribe": "dead"}))
        client.send(message("chat", {"upstream": f"POST {dead}", "publish": "dead"}, "hello"))
        assert client.recv(TIME_LIMIT) == message("chat", {"publish": "dead"}, "hello")
        assert client.recv(TIME_LIMIT) == message("error", {"status": "502", "reason": "upstream request failed"})


def test_hanging_backend_is_504_at_the_time_limit_and_delays_nobody_else(
    proxy: ServerProcess, shared_backend: Backend
) -> None:
    with open_client(proxy.port) as patient, open_client(proxy.port) as other:
        begin = time.monotonic()
        patient.send(message("chat", {"upstream": f"POST {shared_backend.url}/hang"}))
        patient.send(message("echo", {}, "behind it"))
        other.send(message("echo", {}, "meanwhile"))
        assert other.recv(TIME_LIMIT) == message("echo", {}, "meanwhile")
        assert time.monotonic() - begin < LIMIT
        expected = message("error", {"status": "504", "reason": f"upstream did not answer within {LIMIT:g} seconds"})
        assert patient.recv(TIME_LIMIT) == expected
        assert time.monotonic() - begin >= LIMIT
        assert patient.recv(TIME_LIMIT) == message("echo", {}, "behind it")


def test_redirect_is_not_followed(proxy: ServerProcess, shared_backend: Backend) -> None:
    count = len(shared_backend.requests)
    assert ask(proxy, f"GET {shared_backend.url}/redirect") == receipt(302, "elsewhere")
    assert len(shared_backend.requests) == count + 1


def test_compressed_answer_is_not_inflated(proxy: ServerProcess, shared_backend: Backend) -> None:
    before = proxy.resident_size()
    answer = ask(proxy, f"GET {shared_backend.url}/gzip")
    assert isinstance(answer, bytes)
    assert answer.startswith(receipt(200, "").encode("ascii") + b"\x1f\x8b")
    assert len(answer) < 100_000
    assert proxy.resident_size() - before < 10_000_000
    assert shared_backend.requests[-1][2]["accept-encoding"] == "identity"


def test_endless_answer_is_cut(proxy: ServerProcess, shared_backend: Backend) -> None:
    before = proxy.resident_size()
    expected = error(502, "upstream answered with more than 100000 bytes")
    assert ask(proxy, f"GET {shared_backend.url}/endless") == expected
    assert proxy.resident_size() - before < 10_000_000


def test_endless_answer_that_nobody_asked_for_is_cut_without_an_error(
    proxy: ServerProcess, shared_backend: Backend
) -> None:
    before = proxy.resident_size()
    with open_client(proxy.port) as client:
        client.send(message("chat", {"upstream": f"GET {shared_backend.url}/endless"}))
        client.send(message("echo", {}, "next"))
        assert client.recv(TIME_LIMIT) == message("echo", {}, "next")
    assert proxy.resident_size() - before < 10_000_000


def test_answer_that_breaks_off_is_502(proxy: ServerProcess, shared_backend: Backend) -> None:
    assert ask(proxy, f"GET {shared_backend.url}/broken") == error(502, "upstream broke off its answer")


def test_messages_of_one_connection_arrive_in_order_over_one_connection(
    serve: Callable[..., ServerProcess], backend: Backend
) -> None:
    server = serve("--upstream-allow", backend.url)
    sent = [message("chat", {"upstream": f"POST {backend.url}/record"}, str(number)) for number in range(50)]
    with open_client(server.port) as client:
        for text in sent:
            client.send(text)
        backend.wait_for(len(sent))
    assert backend.bodies() == [text.encode("ascii") for text in sent]
    assert backend.connections == 1


def test_connections_to_a_backend_are_bounded(serve: Callable[..., ServerProcess], backend: Backend) -> None:
    server = serve("--upstream-allow", backend.url, "--upstream-max-in-flight", "1", "--upstream-timeout", str(LIMIT))
    with open_client(server.port) as first, open_client(server.port) as second:
        first.send(message("chat", {"upstream": f"GET {backend.url}/hang"}))
        backend.wait_for(1)
        second.send(message("chat", {"upstream": f"GET {backend.url}/record", "receipt": "r"}))
        assert second.recv(TIME_LIMIT) == error(503, "too many upstream requests are in progress")
        assert str(first.recv(TIME_LIMIT)).startswith("LHTTP/1.0 error\r\nstatus:504\r\n")
        second.send(message("chat", {"upstream": f"GET {backend.url}/record", "receipt": "r"}))
        assert second.recv(TIME_LIMIT) == receipt(200, "recorded")


def test_cookie_of_the_backend_is_not_sent_back(proxy: ServerProcess, shared_backend: Backend) -> None:
    assert ask(proxy, f"GET {shared_backend.url}/cookie") == receipt(200, "take this")
    assert ask(proxy, f"GET {shared_backend.url}/record") == receipt(200, "recorded")
    assert "cookie" not in shared_backend.requests[-1][2]


def test_client_that_leaves_does_not_stop_its_last_message(proxy: ServerProcess, shared_backend: Backend) -> None:
    count = len(shared_backend.requests)
    with open_client(proxy.port) as client:
        client.send(message("chat", {"upstream": f"POST {shared_backend.url}/record"}, "last words"))
    shared_backend.wait_for(count + 1)
    assert shared_backend.requests[-1][3].endswith(b"\r\n\r\nlast words")


# Targets

FORBIDDEN = "upstream target is not allowed"
MALFORMED = "upstream URL"
DOTS = "upstream path holds a dot segment"
SLASH = "upstream path holds an encoded slash, backslash or NUL"


@pytest.fixture(scope="module")
def narrow(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that may reach one path of the backend."""
    process = ServerProcess(
        *processor_arguments("echo"),
        *("--upstream-allow", f"{shared_backend.url}/record"),
        cwd=tmp_path_factory.mktemp("narrow"),
    )
    yield process
    process.check()


@pytest.mark.parametrize("path", ["/record", "/record/", "/record/x", "/record/a/b?c=d", "/record?q", "/record/..x"])
def test_listed_path_and_those_below_are_allowed(narrow: ServerProcess, shared_backend: Backend, path: str) -> None:
    assert ask(narrow, f"POST {shared_backend.url}{path}") == receipt(200, "recorded")
    assert shared_backend.requests[-1][1] == path


@pytest.mark.parametrize(
    ("url", "status", "reason"),
    [
        ("http://127.0.0.1:PORT/", 403, FORBIDDEN),
        ("http://127.0.0.1:PORT/other", 403, FORBIDDEN),
        ("http://127.0.0.1:PORT/recordings", 403, FORBIDDEN),
        ("http://127.0.0.1:PORT/RECORD", 403, FORBIDDEN),
        ("http://127.0.0.1:PORT/rec%6Frd", 403, FORBIDDEN),
        ("http://127.0.0.1:PORT//record", 403, FORBIDDEN),
        ("http://127.0.0.1:PORT", 403, FORBIDDEN),
        ("http://127.0.0.1:1/record", 403, FORBIDDEN),
        ("http://127.0.0.1/record", 403, FORBIDDEN),
        ("https://127.0.0.1:PORT/record", 403, FORBIDDEN),
        ("http://localhost:PORT/record", 403, FORBIDDEN),
        ("http://127.1:PORT/record", 403, FORBIDDEN),
        ("http://2130706433:PORT/record", 403, FORBIDDEN),
        ("http://0x7f000001:PORT/record", 403, FORBIDDEN),
        ("http://0177.0.0.1:PORT/record", 403, FORBIDDEN),
        ("http://[::1]:PORT/record", 403, FORBIDDEN),
        ("http://[::ffff:127.0.0.1]:PORT/record", 403, FORBIDDEN),
        ("http://evil.example/record", 403, FORBIDDEN),
        ("http://127.0.0.1.evil.example:PORT/record", 403, FORBIDDEN),
        ("http://127.0.0.1:PORT@evil.example/record", 400, MALFORMED),
        ("http://evil.example@127.0.0.1:PORT/record", 400, MALFORMED),
        ("http://127.0.0.1:PORT/record#part", 400, MALFORMED),
        ("http://127.0.0.1:PORT/record\\x", 400, MALFORMED),
        ("http://127.0.0.1:0PORT/record", 400, MALFORMED),
        ("HTTP://127.0.0.1:PORT/record", 400, MALFORMED),
        ("file:///etc/passwd", 400, MALFORMED),
        ("//127.0.0.1:PORT/record", 400, MALFORMED),
        ("/record", 400, MALFORMED),
        ("http://127.0.0.1:PORT/record/../secret", 400, DOTS),
        ("http://127.0.0.1:PORT/record/./x", 400, DOTS),
        ("http://127.0.0.1:PORT/record/%2e%2e/secret", 400, DOTS),
        ("http://127.0.0.1:PORT/record/.%2E/secret", 400, DOTS),
        ("http://127.0.0.1:PORT/record/..;/secret", 400, DOTS),
        ("http://127.0.0.1:PORT/record/..%2fsecret", 400, SLASH),
        ("http://127.0.0.1:PORT/record/..%5Csecret", 400, SLASH),
    ],
)
def test_other_targets_are_refused(
    narrow: ServerProcess, shared_backend: Backend, url: str, status: int, reason: str
) -> None:
    count = len(shared_backend.requests)
    answer = ask(narrow, "POST " + url.replace("PORT", str(shared_backend.port)))
    assert str(answer).startswith(f"LHTTP/1.0 error\r\nstatus:{status}\r\nreason:{reason}")
    assert len(shared_backend.requests) == count


def test_upstream_is_off_by_default(server: ServerProcess, backend: Backend) -> None:
    assert ask(server, f"GET {backend.url}/") == error(403, FORBIDDEN)
    assert not backend.requests


@pytest.mark.parametrize("host", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "[fe80::1]", "[64:ff9b::7f00:1]"])
def test_listed_target_with_an_address_that_is_never_allowed_is_403(
    serve: Callable[..., ServerProcess], host: str
) -> None:
    server = serve(*processor_arguments("echo"), "--upstream-allow", f"http://{host}:1/")
    assert ask(server, f"GET http://{host}:1/") == error(403, "upstream address is not allowed")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_private_address_is_403_where_only_public_targets_are_wanted(
    serve: Callable[..., ServerProcess], backend: Backend, host: str
) -> None:
    url = f"http://{host}:{backend.port}/"
    server = serve(*processor_arguments("echo"), "--upstream-public-only", "--upstream-allow", url)
    assert ask(server, f"GET {url}") == error(403, "upstream address is not allowed")
    assert backend.connections == 0


def test_backend_at_an_ipv6_address_is_reached(serve: Callable[..., ServerProcess]) -> None:
    try:
        backend = Backend("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    try:
        server = serve(*processor_arguments("echo"), "--upstream-allow", f"{backend.url}/record")
        assert ask(server, f"POST {backend.url}/record") == receipt(200, "recorded")
        assert backend.requests[0][2]["host"] == f"[::1]:{backend.port}"
    finally:
        backend.stop()


def test_a_backend_that_was_written_for_the_original_gets_the_body_and_the_headers(
    serve: Callable[..., ServerProcess], backend: Backend
) -> None:
    server = serve("--upstream-allow", f"{backend.url}/record/whole", "--upstream-original", f"{backend.url}/record")
    server.wait_for_log(f"upstream: {backend.url}/record/whole, {backend.url}/record (original)")
    headers = {
        "upstream": f"POST {backend.url}/record",
        "content-type": "json",
        "content-length": "3",
        "transfer-encoding": "chunked",
        "connection": "close, content-type",
        "host": "evil.example",
        "x-forwarded-for": "127.0.0.1",
        "x_forwarded_for": "127.0.0.1",
        "room": "é",
        "publish": "mike",
        "receipt": "r",
    }
    with open_client(server.port) as client:
        client.send(message("chat", headers, '{"to":"é"}'))
        assert client.recv(TIME_LIMIT) == receipt(200, "recorded")
        client.send(message("chat", headers | {"upstream": f"GET {backend.url}/record?q=1"}, "left here"))
        assert client.recv(TIME_LIMIT) == receipt(200, "recorded")
        whole = message("chat", headers | {"upstream": f"PUT {backend.url}/record/whole"}, "x")
        client.send(whole)
        assert client.recv(TIME_LIMIT) == receipt(200, "recorded")
        client.send(message("chat", headers | {"room": "a\x0bHost: b"}, "x"))
        assert client.recv(TIME_LIMIT) == error(400, "value of header room holds a control character")
    posted, got, put = backend.requests
    assert posted[3].decode("utf-8") == '{"to":"é"}'
    assert posted[2]["content-type"] == "json"
    assert posted[2]["content-length"] == str(len(posted[3]))
    assert posted[2]["host"] == backend.url.partition("//")[2]
    assert posted[2]["room"].encode("latin-1").decode("utf-8") == "é"
    assert posted[2]["publish"] == "mike"
    for name in ("transfer-encoding", "x-forwarded-for", "x_forwarded_for", "upstream", "receipt"):
        assert name not in posted[2]
    assert got[:2] == ("GET", "/record?q=1")
    assert (got[3], got[2]["room"]) == (b"", posted[2]["room"])
    assert put[3].decode("utf-8") == whole
    assert "room" not in put[2]
