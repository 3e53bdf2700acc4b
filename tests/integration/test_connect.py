"""Whole clients without WebSocket, over real sockets: cuts, bad clients, slow ones, and many."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration._http_client import HTTPClient
from integration._server import (
    RESET,
    TIME_LIMIT,
    ServerProcess,
    http_request,
    message,
    on_one_of_these_clocks,
    open_client,
    processor_arguments,
    wait_until,
)

HELLO = message("chat", {"publish": "room"}, "hello")


def publish(port: int, channel: str, body: str) -> None:
    status, _, answer = http_request(port, "POST", "/publish", message("chat", {"publish": channel}, body))
    assert status == 200, answer


def bodies(messages: list[str]) -> list[str]:
    return [found.partition("\r\n\r\n")[2] for found in messages]


def raw_request(port: int, client: HTTPClient, target: str) -> socket.socket:
    """Ask for something, and return the socket before anything is read."""
    sock = socket.create_connection(("127.0.0.1", port), TIME_LIMIT)
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {client.secret}\r\n\r\n".encode())
    return sock


def test_clients_of_all_kinds_talk(server: ServerProcess) -> None:
    client, other = HTTPClient(server.port), HTTPClient(server.port, query="?protocol=lhttp.json")
    client.subscribe("talk")
    assert other.send(message("chat", {"subscribe": "talk", "receipt": "s"})) == 204
    stream = other.stream()
    stream.wait_for(1)
    with open_client(server.port) as websocket:
        websocket.send(message("chat", {"subscribe": "talk", "receipt": "s"}))
        websocket.recv(timeout=TIME_LIMIT)
        for number in range(3):
            client.send(message("chat", {"publish": "talk"}, f"client {number}"))
            websocket.send(message("chat", {"publish": "talk", "receipt": f"{number}"}, f"websocket {number}"))
        wanted = sorted([*(f"client {number}" for number in range(3)), *(f"websocket {number}" for number in range(3))])
        assert sorted(bodies(client.wait_for(6))) == wanted
        assert sorted(event.body for event in stream.wait_for(7)[1:]) == wanted
        received = [str(websocket.recv(timeout=TIME_LIMIT)) for _ in range(9)]
        assert sorted(filter(None, bodies(received))) == wanted
    stream.close()
    assert (client.end(), other.end()) == (204, 204)


def test_processors_answer(server: ServerProcess) -> None:
    client = HTTPClient(server.port)
    assert client.send(message("echo", {}, "1"), message("deferred", {}, "2"), message("echo", {}, "3")) == 204
    assert bodies(client.wait_for(3)) == ["1", "2", "3"]
    client.end()


def test_nothing_is_lost_or_twice_where_answers_are_cut(server: ServerProcess) -> None:
    client = HTTPClient(server.port)
    client.subscribe("cut")
    done = threading.Event()

    def cut() -> None:
        """Ask for the same again and again, and hang up in the middle of the answer."""
        for turn in range(30):
            target = f"/connect?after={client.last}" + ("&poll=1" if turn % 2 else "")
            with raw_request(server.port, client, target) as sock:
                sock.recv(100 if turn % 3 else 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        done.set()

    thread = threading.Thread(target=cut)
    thread.start()
    for number in range(100):
        publish(server.port, "cut", str(number))
    thread.join(4 * TIME_LIMIT)
    assert done.is_set()
    assert bodies(client.wait_for(100)) == [str(number) for number in range(100)]
    client.end()


def test_a_stream_goes_on_where_it_was_cut(server: ServerProcess) -> None:
    client = HTTPClient(server.port, query="?protocol=lhttp.json")
    client.send(message("chat", {"subscribe": "resume", "receipt": "s"}))
    stream = client.stream()
    stream.wait_for(1)
    for number in range(5):
        publish(server.port, "resume", str(number))
    events = stream.wait_for(6)
    stream.close()
    publish(server.port, "resume", "5")
    again = client.stream(int(events[3].last_id))
    assert [event.body for event in again.wait_for(3)] == ["3", "4", "5"]
    again.close()
    client.end()


def test_messages_that_are_sent_again_are_taken_once(server: ServerProcess) -> None:
    client = HTTPClient(server.port)
    client.subscribe("again")
    for number in range(1, 21):
        hello = message("chat", {"publish": "again"}, str(number)).encode()
        head = (
            f"POST /send?number={number + 1} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {client.secret}\r\n"
            f"Content-Length: {len(hello)}\r\n\r\n"
        ).encode()
        for turn in range(3):
            with socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock:
                sock.sendall(head + hello)
                if turn == 2:
                    assert sock.recv(100).startswith(b"HTTP/1.1 204 ")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    assert bodies(client.wait_for(20)) == [str(number) for number in range(1, 21)]
    assert client.poll(wait=0) == 200
    assert len(client.got) == 20
    client.end()


def test_the_newest_of_two_requests_fetches(server: ServerProcess) -> None:
    client = HTTPClient(server.port)
    client.subscribe("two")
    stream = client.stream()
    assert stream.response.status == 200
    waiting = raw_request(server.port, client, f"/connect?poll=1&after={client.last}")
    assert stream.read_to_the_end() == []
    second = client.stream()
    assert waiting.recv(100).startswith(b"HTTP/1.1 409 ")
    publish(server.port, "two", "hello")
    second.wait_for(1)
    waiting.close()
    second.close()
    client.end()


def test_a_wrong_secret_opens_nothing(server: ServerProcess) -> None:
    client, other = HTTPClient(server.port), HTTPClient(server.port)
    mixed = client.secret.rpartition(".")[0] + "." + other.secret.rpartition(".")[2]
    for wrong in (mixed, client.secret + "x", "x", "é"):
        headers = {"Authorization": f"Bearer {wrong}".encode("latin-1").decode("latin-1")}
        for method, path in (
            ("GET", "/connect"),
            ("GET", "/connect?poll=1"),
            ("POST", "/send"),
            ("DELETE", "/connect"),
        ):
            status, _, answer = http_request(server.port, method, path, b"", headers)
            assert (status, answer) == (404, b"there is no such session, or it has ended: connect again\n")
    assert http_request(server.port, "GET", f"/connect?session={client.secret}")[0] == 401
    assert client.poll(wait=0) == other.poll(wait=0) == 200
    assert client.secret not in server.log
    assert (client.end(), other.end()) == (204, 204)


def test_a_session_that_nobody_fetches_ends(serve: Callable[..., ServerProcess]) -> None:
    def attempt(seconds: int) -> None:
        server = serve("--ping-interval", str(seconds), "--ping-timeout", "1", *processor_arguments("Visits"))
        client = HTTPClient(server.port)
        stream = client.stream()
        time.sleep(seconds + 2)  # somebody fetches
        client.send(message("chat", {"subscribe": "room", "receipt": "s"}))
        stream.wait_for(1)
        stream.close()
        server.wait_for_log("session ended, nobody fetches its messages")
        assert client.poll(wait=0) == 404
        assert client.send(HELLO) == 404

    on_one_of_these_clocks(attempt)


def test_there_are_not_too_many(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--max-connections", "3")
    clients = [HTTPClient(server.port) for _ in range(3)]
    assert http_request(server.port, "POST", "/connect")[0] == 503
    with pytest.raises(Exception, match="503"), open_client(server.port):
        pass
    assert [client.poll(wait=0) for client in clients] == [200] * 3
    assert clients[0].end() == 204
    HTTPClient(server.port)


def test_a_slow_reader_ends_and_harms_nobody(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--max-unsent", "200000")
    slow, other = HTTPClient(server.port), HTTPClient(server.port)
    for client in (slow, other):
        client.subscribe("flood")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(TIME_LIMIT)
    sock.connect(("127.0.0.1", server.port))
    target = f"/connect?after={slow.last}"
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {slow.secret}\r\n\r\n".encode())
    large = "x" * 50_000
    for number in range(200):
        publish(server.port, "flood", f"{number} {large}")
        other.wait_for(number + 1)
        if "it does not fetch" in server.log:
            break
    server.wait_for_log("closed, it does not fetch")
    received = b""
    while data := sock.recv(65_536):
        received += data
    assert b"code:1013" in received
    assert other.poll(wait=0) == 200
    sock.close()


def test_brackets_cost_little(server: ServerProcess) -> None:
    client = HTTPClient(server.port)
    headers = client.headers | {"Content-Type": "application/json"}
    begun = time.process_time()
    for body in (
        "[" * 65_536,
        "[" * 32_768 + "]" * 32_768,
        "[{}," * 16_000 + "{}]",
        '[{"A":' * 10_000,
        "[" + "1," * 30_000,
    ):
        status, _, answer = http_request(server.port, "POST", "/send", body, headers)
        assert status in (400, 413), answer
    for text in ("1\n" * 30_000, "0\n" * 32_000, "99999999\n", "9" * 65_536):
        status, _, answer = http_request(server.port, "POST", "/send", text, client.headers)
        assert status in (400, 413), answer
    assert time.process_time() - begun < TIME_LIMIT
    assert client.send(message("echo", {}, "still there")) == 204
    assert bodies(client.wait_for(1)) == ["still there"]
    client.end()


def test_a_client_sends_json(server: ServerProcess) -> None:
    client = HTTPClient(server.port, query="?protocol=lhttp.json")
    views = [{"COMMAND": "echo", "BODY": "1"}, {"COMMAND": "echo", "BODY_BASE64": "/w=="}]
    headers = client.headers | {"Content-Type": "application/json"}
    assert http_request(server.port, "POST", "/send", json.dumps(views), headers)[0] == 204
    one, two = client.wait_for(2)
    assert one["BODY"] == "1"  # type: ignore[index]
    assert two["BODY_BASE64"] == "/w=="  # type: ignore[index]
    client.end()


def test_a_client_logs_in_as_others_do(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ada:secret\n", encoding="utf-8")
    (tmp_path / "users").chmod(0o600)
    server = serve("--auth", f"file:{tmp_path}/users", "--login-timeout", "60", "--allow-origin", "https://app.example")
    basic = {"Authorization": "Basic YWRhOnNlY3JldA=="}
    client = HTTPClient(server.port, headers=basic)
    client.subscribe("room")
    late = HTTPClient(server.port, body=message("login", {"user": "ada", "password": "secret"}))
    assert "user:ada" in late.wait_for(1)[0]
    late.got.clear()
    late.send(HELLO)
    assert bodies(client.wait_for(1)) == ["hello"]
    assert http_request(server.port, "POST", "/connect", None, {"Authorization": "Basic YWRhOndyb25n"})[0] == 401
    evil = {"Origin": "https://evil.example"}
    assert http_request(server.port, "POST", "/connect", None, basic | evil)[0] == 403
    assert http_request(server.port, "POST", "/send", HELLO, client.headers | evil)[0] == 403
    assert "YWRhOnNlY3JldA==" not in server.log


def test_an_operator_may_switch_it_off(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--no-events")
    assert http_request(server.port, "POST", "/connect")[0] == http_request(server.port, "POST", "/send")[0] == 426


def test_a_server_that_stops_tells_everybody_why(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    streaming, polling = HTTPClient(server.port), HTTPClient(server.port)
    stream = streaming.stream()
    sock = raw_request(server.port, polling, "/connect?poll=1")
    time.sleep(0.2)
    server.stop()
    assert "code:1001" in str(json.loads(stream.read_to_the_end()[-1].data))
    answer = b""
    while data := sock.recv(4096):
        answer += data
    assert b"code:1001" in answer
    sock.close()


def test_sessions_are_in_the_counts(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--max-per-address", "2", "--trusted-proxy", "127.0.0.1")
    address = {"X-Forwarded-For": "192.0.2.7"}
    clients = [HTTPClient(server.port, headers=address) for _ in range(2)]
    assert http_request(server.port, "POST", "/connect", None, address)[0] == 429
    assert [client.poll(wait=0) for client in clients] == [200, 200]
    clients[0].end()
    wait_until(lambda: http_request(server.port, "POST", "/connect", None, address)[0] == 200, "there is room")
