"""
Event streams over real sockets: curl, Python's and Go's standard libraries, TLS, UNIX sockets, restarts, bad clients.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from event_source import Event, Parser

from integration._docs import free_port
from integration._http_client import LiveStream
from integration._server import TIME_LIMIT, ServerProcess, http_request, message, open_client, wait_until

CURL = shutil.which("curl")
GO = shutil.which("go")

PATIENCE = 4 * TIME_LIMIT

NASTY = "one\r\ntwo\n\nid: 666\nevent: error\ndata: x\u2028\u2029\x85end"

GO_READER = """
package main

import ("bufio"; "encoding/json"; "fmt"; "net/http"; "os"; "strings")

func main() {
	request, _ := http.NewRequest("GET", os.Args[1], nil)
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	if err != nil { fmt.Println(err); os.Exit(1) }
	fmt.Println(response.StatusCode, response.Header.Get("Content-Type"))
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if data, found := strings.CutPrefix(lines.Text(), "data: "); found {
			var message struct { COMMAND, BODY string }
			if json.Unmarshal([]byte(data), &message) != nil { os.Exit(2) }
			fmt.Printf("%s %q\\n", message.COMMAND, message.BODY)
			if message.BODY == "end" { return }
		}
	}
}
"""


class Stream(LiveStream):
    """A stream of ``GET /events``."""

    def __init__(self, port: int, query: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(port, f"/events?{query}", headers)


def publish(port: int, channel: str, body: str, **headers: str) -> None:
    """Publish, and see that it was taken."""
    pairs = {"publish": channel, **{name.replace("_", "-"): value for name, value in headers.items()}}
    status, _, answer = http_request(port, "POST", "/publish", message("chat", pairs, body))
    assert status == 200, answer


def wait_for_beginning(stream: Stream) -> None:
    """Return when a stream is subscribed: its first bytes say so."""
    while stream.parser.retry is None:
        stream.parser.feed(stream.response.read1(4096))


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
def test_curl_reads_a_stream(server: ServerProcess) -> None:
    with subprocess.Popen(
        ["curl", "-sN", "--noproxy", "*", f"http://127.0.0.1:{server.port}/events?channel=curl&data=body"],
        stdout=subprocess.PIPE,
    ) as curl:
        try:
            assert curl.stdout is not None
            assert curl.stdout.readline().startswith(b"retry: ")
            publish(server.port, "curl", "hello\nworld")
            lines = [curl.stdout.readline() for _ in range(5)]
        finally:
            curl.kill()
    assert lines == [b"\n", b"event: chat\n", b"data: hello\n", b"data: world\n", b"\n"]


@pytest.mark.skipif(GO is None, reason="go is not installed")
def test_a_program_in_go_reads_a_stream(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "reader.go").write_text(GO_READER, encoding="utf-8")
    environment = {**os.environ, "GO111MODULE": "off", "GOTOOLCHAIN": "local"}
    url = f"http://127.0.0.1:{server.port}/events?channel=go"
    subprocess.run(["go", "build", "reader.go"], cwd=tmp_path, env=environment, check=True, timeout=20 * PATIENCE)
    with subprocess.Popen([tmp_path / "reader", url], stdout=subprocess.PIPE, encoding="utf-8") as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "200 text/event-stream\n"
            for body in (NASTY, "ü", "end"):
                publish(server.port, "go", body)
            lines = program.stdout.read().splitlines()
        finally:
            program.kill()
    assert [json.loads(line.removeprefix("chat ")) for line in lines[1:]] == ["ü", "end"]
    assert "666" in lines[0]


def test_python_reads_what_a_websocket_publishes(server: ServerProcess) -> None:
    with Stream(server.port, "channel=py&channel=other") as stream, open_client(server.port) as client:
        assert stream.response.getheader("Content-Type") == "text/event-stream"
        assert stream.response.getheader("Cache-Control") == "no-store, no-transform"
        assert stream.response.getheader("X-Accel-Buffering") == "no"
        client.send(message("flash", {"publish": "py", "x": "1"}, NASTY))
        client.send(message("chat", {"publish": "other"}, "two"))
        client.send(message("bytes", {"publish": "py"}, "\0").encode().replace(b"\0", b"\xff\xfe"))
        events = stream.wait_for(3)
    assert [event.name for event in events] == ["flash", "chat", "bytes"]
    assert events[0].message["HEADERS"] == {"publish": "py", "x": "1"}
    assert [event.body for event in events[:2]] == [NASTY, "two"]
    assert events[2].message["BODY_BASE64"] == "//4="


def test_many_streams_get_a_burst_in_order(server: ServerProcess) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(Stream(server.port, "channel=burst&data=body")) for _ in range(20)]
        client = stack.enter_context(open_client(server.port))
        client.send(message("chat", {"subscribe": "burst"}))
        for number in range(500):
            client.send(message("chat", {"publish": "burst"}, str(number)))
        wanted = [str(number) for number in range(500)]
        for stream in streams:
            assert [event.data for event in stream.wait_for(500)] == wanted
        assert [str(client.recv(TIME_LIMIT)).rpartition("\r\n\r\n")[2] for _ in range(500)] == wanted


def test_a_stream_over_tls(serve: Callable[..., ServerProcess], certificate: tuple[Path, Path]) -> None:
    key, certificate_file = certificate
    server = serve(listen=["--listen", f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate_file}"])
    context = ssl.create_default_context(cafile=str(certificate_file))
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=PATIENCE, context=context)
    connection.request("GET", "/events?channel=a&data=body")
    response = connection.getresponse()
    with open_client_tls(server.port, context) as send:
        for number in range(100):
            send(message("chat", {"publish": "a"}, f"{number}" + "x" * 5_000))
    parser = Parser()
    while len(parser.events) < 100:
        parser.feed(response.read1(65_536))
    assert [event.data.rstrip("x") for event in parser.events] == [str(number) for number in range(100)]
    connection.close()


@contextmanager
def open_client_tls(port: int, context: ssl.SSLContext) -> Iterator[Callable[[str], None]]:
    """Publish over TLS."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)

    def send(text: str) -> None:
        connection.request("POST", "/publish", text)
        assert connection.getresponse().read().startswith(b"{")

    yield send
    connection.close()


def test_a_stream_over_a_unix_socket(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = serve(listen=["--listen", "tcp:0:interface=127.0.0.1", "--listen", "unix:lhttp.sock"], endpoints=2)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(tmp_path / "lhttp.sock"))
        sock.sendall(b"GET /events?channel=a&data=body HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = sock.recv(65_536)
        publish(server.port, "a", "hello")
        while b"data: hello\n\n" not in received:
            received += sock.recv(65_536)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_streams_may_be_switched_off(serve: Callable[..., ServerProcess]) -> None:
    assert http_request(serve("--no-events").port, "GET", "/events?channel=a")[0] == 426


def test_presence_knows_a_stream(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--presence", ">", "--login-parameter", "user")
    with open_client(server.port, "/?user=watcher") as watcher:
        watcher.send(message("chat", {"subscribe": "$presence.room", "receipt": "1"}))
        assert "receipt-id:1" in str(watcher.recv(TIME_LIMIT))
        with Stream(server.port, "channel=room&user=jack"):
            joined = str(watcher.recv(TIME_LIMIT))
        left = str(watcher.recv(PATIENCE))
    assert "jack" in joined
    assert "jack" in left


# Restarts


class Reader(threading.Thread):
    """
    Reads as an ``EventSource`` does: it comes again, with the id of the last event.

    :ivar events: all that it has got.
    :ivar last_id: where it goes on.
    :ivar over: whether it stops.
    """

    def __init__(self, port: int, query: str) -> None:
        super().__init__(daemon=True)
        self.events: list[Event] = []
        self.over = False
        self._port = port
        self._query = query
        self.last_id = ""

    @property
    def data(self) -> list[str]:
        """The data of what was published."""
        return [event.data for event in self.events if event.name == "chat"]

    def run(self) -> None:
        while not self.over:
            try:
                self._read()
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)

    def _read(self) -> None:
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        with Stream(self._port, self._query, headers) as stream:
            known = 0
            while not self.over and (data := stream.response.read1(4096)):
                stream.parser.feed(data)
                self.events += stream.parser.events[known:]
                known = len(stream.parser.events)
                self.last_id = stream.parser.last_id or self.last_id


@pytest.mark.parametrize("query", ["channel=room.a&data=body", "channel=room.a&channel=room.b&data=body"])
def test_nothing_is_missed_or_twice_over_restarts(
    serve: Callable[..., ServerProcess], tmp_path: Path, query: str
) -> None:
    port = free_port()
    options = ("--history", "room.*", "--history-store", f"sqlite:{tmp_path}/history.db")
    listen = ("--port", f"tcp:{port}:interface=127.0.0.1:backlog=1024")
    server = serve(*options, listen=listen)
    publish(port, "room.a", "before")
    reader = Reader(port, query)
    reader.start()
    wait_until(lambda: reader.last_id, "the beginning", PATIENCE)
    wanted: list[str] = []

    def send(number: int) -> None:
        for channel in ("room.a", "room.b"):
            publish(port, channel, f"{channel} {number}", message_id=f"{channel}{number}")
        wanted.append(f"room.a {number}")
        if "room.b" in query:
            wanted.append(f"room.b {number}")

    def wait() -> None:
        wait_until(lambda: len(reader.data) >= len(wanted), f"{len(wanted)} events", PATIENCE)

    for life in range(1, 4):
        for number in range(5):
            send(10 * life + number)
        wait()
        if life == 3:
            server.crash()
        else:
            server.stop()
        server = serve(*options, listen=listen)
        send(10 * life + 5)
    wait()
    reader.over = True
    publish(port, "room.a", "over")
    reader.join(PATIENCE)
    found = reader.data
    for channel in ("room.a", "room.b"):
        assert [data for data in found if channel in data] == [data for data in wanted if channel in data]
    assert {event.name for event in reader.events} <= {"chat", "close"}


def test_the_end_of_a_server_is_told(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    with Stream(server.port, "channel=a") as stream:
        wait_for_beginning(stream)
        server.process.send_signal(signal.SIGTERM)
        (event,) = stream.read_to_the_end()
    assert event.name == "close"
    assert event.message["HEADERS"]["code"] == "1001"


# Bad clients


def test_a_client_that_never_reads_is_cut_off_and_harms_nobody(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--max-unsent", "200000")
    with (
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock,
        Stream(server.port, "channel=a") as good,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /events?channel=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.recv(16)
        with open_client(server.port) as client:
            count = 0
            while "it does not read" not in server.log:
                client.send(message("chat", {"publish": "a", "receipt": "1"}, "x" * 60_000))
                assert "receipt" in str(client.recv(TIME_LIMIT))
                count += 1
                assert count < 2_000
                assert len(good.wait_for(count)) == count


def test_a_client_that_stops_reading_is_gone_after_a_while(serve: Callable[..., ServerProcess]) -> None:
    """It asks for no answer as a ping does, so the system has to find out. Linux can."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("this system does not drop clients that acknowledge nothing")
    server = serve("--ping-interval", "1", "--ping-timeout", "1", "--presence", ">", "--login-parameter", "user")
    with open_client(server.port, "/?user=watcher") as watcher, socket.socket() as sock:
        watcher.send(message("chat", {"subscribe": "$presence.a", "receipt": "1"}))
        assert "receipt-id:1" in str(watcher.recv(TIME_LIMIT))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(b"GET /events?channel=a&user=jack HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert "jack" in str(watcher.recv(PATIENCE))
        for _ in range(3):
            watcher.send(message("chat", {"publish": "a"}, "x" * 60_000))
        assert "jack" in str(watcher.recv(3 * PATIENCE))


def test_heartbeats_come_over_the_wire(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--ping-interval", "1")
    with Stream(server.port, "channel=a") as stream:
        while stream.parser.comments < 2:
            stream.parser.feed(stream.response.read1(4096))


@pytest.mark.parametrize("head", [
    "Last-Event-ID: e-1\r\n id: 2",
    "Last-Event-ID: " + "x" * 15_000,
    "Last-Event-ID: " + " ".join(f"a{number}=e-1" for number in range(900)),
    "Last-Event-ID: \u2028\x85",
])  # fmt: skip
def test_a_forged_id_is_400_and_no_line_of_it_comes_back(server: ServerProcess, head: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        sock.sendall(f"GET /events?channel=a HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            data = sock.recv(65_536)
            assert data
            received += data
    assert received.startswith(b"HTTP/1.1 400 ")


def test_streams_that_come_and_go_leave_nothing_behind(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--max-connections", "50")
    for _ in range(5):
        with ExitStack() as stack:
            for stream in [stack.enter_context(Stream(server.port, "channel=a")) for _ in range(50)]:
                wait_for_beginning(stream)
            assert http_request(server.port, "GET", "/health")[0] == 503
            with Stream(server.port, "channel=a") as refused:
                assert [event.name for event in refused.read_to_the_end()] == ["error"]
        wait_until(lambda: http_request(server.port, "GET", "/health")[0] == 200, "room for the next", PATIENCE)
