"""Every file in examples/ does what its docstring says, against real sockets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from token_makers import SECRET, make_token
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from integration._docs import ROOT, Process, environment, free_port, wait_for_port

EXAMPLES = ROOT / "examples"
TWISTD = Path(sys.executable).with_name("twistd")
TIME_LIMIT = 60.0

Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start Python programs, each with changes to the environment; wait for their ports; stop them at the end."""
    started: list[Process] = []

    def start_program(*arguments: object, ports: tuple[int, ...] = (), **changes: str) -> Process:
        directory = tmp_path / str(len(started))
        directory.mkdir()
        started.append(Process([sys.executable, *map(str, arguments)], directory, **changes))
        for port in ports:
            wait_for_port(port, started[-1])
        return started[-1]

    yield start_program
    for process in reversed(started):
        process.stop()


@pytest.fixture
def serve(start: Start) -> Callable[..., int]:
    """Start ``twistd lhttp`` with some arguments and return its port."""

    def start_server(*arguments: object) -> int:
        port = free_port()
        start(TWISTD, "-n", "--pidfile=", "lhttp", "--port", port, *arguments, ports=(port,))
        return port

    return start_server


def run(*arguments: object, **changes: str) -> str:
    """Run a Python program and return what it prints."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, env={**environment(), **changes}, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def exchange(url: str, *messages: str) -> str:
    """Send messages on one connection and return the first that comes back."""
    with connect(url) as client:
        for message in messages:
            client.send(message)
        return str(client.recv(timeout=TIME_LIMIT))


def test_echo_answers_with_the_message(serve: Callable[..., int]) -> None:
    port = serve("--processor", f"{EXAMPLES}/echo.py:echo")
    message = "LHTTP/1.0 echo\r\na:b\r\n\r\nhello"
    assert exchange(f"ws://127.0.0.1:{port}/", message) == message


@pytest.fixture
def chat(serve: Callable[..., int]) -> str:
    """Return the URL of a server with the chat example."""
    port = serve("--processor", f"{EXAMPLES}/chat.py:Login", "--processor", f"{EXAMPLES}/chat.py:Chat")
    return f"ws://127.0.0.1:{port}/"


def test_chat_clients_read_each_other_with_names(chat: str, start: Start) -> None:
    jack = start(EXAMPLES / "chat_client.py", chat, "jack", "room.a")
    mike = start(EXAMPLES / "chat_client.py", chat, "mike", "room.a")
    for client in (jack, mike):
        client.wait_for_output("you are in room.a\n")
    jack.type("hello mike")
    mike.wait_for_output("jack: hello mike\n")
    mike.type("hello jack")
    jack.wait_for_output("mike: hello jack\n")


def test_chat_refuses_whoever_has_not_logged_in(chat: str) -> None:
    answer = exchange(chat, "LHTTP/1.0 chat\r\npublish:room.a\r\n\r\nhello")
    assert answer == "LHTTP/1.0 error\r\nstatus:401\r\nreason:log in first\r\n\r\n"


def test_chat_replaces_a_forged_name(chat: str) -> None:
    with connect(chat) as client:
        client.send("LHTTP/1.0 login\r\n\r\njack")
        client.recv(timeout=TIME_LIMIT)
        client.send("LHTTP/1.0 chat\r\nsubscribe:room.a\r\n\r\n")
        client.send("LHTTP/1.0 chat\r\nFrom:mike\r\npublish:room.a\r\n\r\nhello")
        assert client.recv(timeout=TIME_LIMIT) == "LHTTP/1.0 chat\r\npublish:room.a\r\nfrom:jack\r\n\r\nhello"


def test_chat_gives_a_name_away_once_its_owner_has_left(chat: str) -> None:
    login = "LHTTP/1.0 login\r\n\r\njack"
    with connect(chat) as first:
        first.send(login)
        assert first.recv(timeout=TIME_LIMIT) == "LHTTP/1.0 login\r\n\r\nwelcome jack"
        assert "status:409" in exchange(chat, login)
    assert exchange(chat, login) == "LHTTP/1.0 login\r\n\r\nwelcome jack"


def test_upload_arrives_in_its_parts(serve: Callable[..., int], tmp_path: Path) -> None:
    port = serve("--processor", f"{EXAMPLES}/upload.py:upload", "--max-message-size", 1_048_576)
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "picture.png").write_bytes(bytes(range(256)) * 400)
    printed = run(
        EXAMPLES / "upload_client.py",
        f"ws://127.0.0.1:{port}/",
        tmp_path / "picture.png",
        tmp_path / "empty.txt",
    )
    assert printed == "picture.png 102400\nempty.txt 0\n"


def test_upload_without_parts_is_refused(serve: Callable[..., int]) -> None:
    port = serve("--processor", f"{EXAMPLES}/upload.py:upload")
    assert "status:400" in exchange(f"ws://127.0.0.1:{port}/", "LHTTP/1.0 upload\r\n\r\nhello")


def test_recorder_gets_the_messages_that_name_it(serve: Callable[..., int], start: Start, tmp_path: Path) -> None:
    backend, record = free_port(), tmp_path / "chat.log"
    start(EXAMPLES / "recorder.py", backend, record, ports=(backend,))
    url = f"http://127.0.0.1:{backend}/record"
    port = serve("--upstream-allow", url)
    answer = exchange(
        f"ws://127.0.0.1:{port}/",
        "LHTTP/1.0 chat\r\npublish:mike\r\n\r\nnot recorded",
        f"LHTTP/1.0 chat\r\nupstream:POST {url}\r\npublish:mike\r\nreceipt:1\r\n\r\nhello mike",
    )
    assert answer == "LHTTP/1.0 receipt\r\nreceipt-id:1\r\nupstream-status:200\r\n\r\nrecorded"
    assert json.loads(record.read_text()) == {"command": "chat", "channels": "mike", "body": "hello mike"}


def test_recorder_returns_its_record(start: Start, tmp_path: Path) -> None:
    backend, record = free_port(), tmp_path / "chat.log"
    record.write_text("{}\n")
    start(EXAMPLES / "recorder.py", backend, record, ports=(backend,))
    assert get(f"http://127.0.0.1:{backend}/record") == b"{}\n"


def test_collector_prints_what_a_server_traces(serve: Callable[..., int], start: Start) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="OpenTelemetry is missing (the extra otel)")
    port = free_port()
    collector = start(EXAMPLES / "collector.py", port, ports=(port,))
    server = serve("--trace", f"http://127.0.0.1:{port}")
    request = urllib.request.Request(f"http://127.0.0.1:{server}/publish", b"LHTTP/1.0 x\r\npublish:room\r\n\r\n")
    request.add_header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    get(request)
    collector.wait_for_output("publish (producer) room")
    assert collector.output.splitlines() == [
        "waiting for spans",
        "trace 0af7651916cd43dd8448eb211c80319c",
        "  POST /publish (server) 200",
        "    publish (producer) room",
    ]


def test_site_keeps_its_own_page(start: Start) -> None:
    port = free_port()
    start(EXAMPLES / "site.py", port, ports=(port,))
    assert b"The page that was here before." in get(f"http://127.0.0.1:{port}/")


def test_site_takes_websockets_and_publications_below_chat(start: Start) -> None:
    port = free_port()
    start(EXAMPLES / "site.py", port, ports=(port,))
    with connect(f"ws://127.0.0.1:{port}/chat") as client:
        client.send("LHTTP/1.0 chat\r\nsubscribe:room.a\r\nreceipt:1\r\n\r\n")
        client.recv(timeout=TIME_LIMIT)
        run(EXAMPLES / "publish.py", f"http://127.0.0.1:{port}/chat/publish", "room.a", "hello")
        assert client.recv(timeout=TIME_LIMIT) == "LHTTP/1.0 chat\r\npublish:room.a\r\n\r\nhello"


def test_tac_file_starts_a_server(start: Start, tmp_path: Path) -> None:
    port = free_port()
    tac = tmp_path / "lhttp.tac"
    tac.write_text((EXAMPLES / "lhttp.tac").read_text().replace("8081", str(port)))
    start(TWISTD, "-n", "--pidfile=", "-y", tac, ports=(port,))
    assert exchange(f"ws://127.0.0.1:{port}/", "LHTTP/1.0 time\r\n\r\n").startswith("LHTTP/1.0 time\r\n\r\n")


def test_two_servers_share_a_process_and_no_channel(start: Start) -> None:
    public, private = free_port(), free_port()
    start(EXAMPLES / "two_servers.py", public, private, ports=(public, private))
    subscribe = "LHTTP/1.0 chat\r\nsubscribe:status\r\nreceipt:1\r\n\r\n"
    with connect(f"ws://127.0.0.1:{public}/") as outside:
        outside.send(subscribe)
        assert "receipt-id:1" in str(outside.recv(timeout=TIME_LIMIT))
        with connect(f"ws://127.0.0.1:{private}/") as inside:
            inside.send(subscribe)
            inside.recv(timeout=TIME_LIMIT)
            assert inside.recv(timeout=TIME_LIMIT) == "LHTTP/1.0 status\r\npublish:status\r\n\r\n1 connections"
        with pytest.raises(TimeoutError):
            outside.recv(timeout=0.2)


def test_publish_script_shows_the_reason_of_a_refusal(serve: Callable[..., int]) -> None:
    port = serve()
    command = [sys.executable, EXAMPLES / "publish.py", f"http://127.0.0.1:{port}/publish", "room.a", "x" * 70_000]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    assert (done.returncode, done.stderr.partition(":")[0]) == (1, "413")


def test_publish_script_sends_the_token(serve: Callable[..., int], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-that-is-long-enough\n")
    port = serve("--publish-token-file", token)
    arguments = (EXAMPLES / "publish.py", f"http://127.0.0.1:{port}/publish", "room.a", "hello")
    run(*arguments, LHTTP_PUBLISH_TOKEN="a-token-that-is-long-enough")


def test_publish_from_php(serve: Callable[..., int]) -> None:
    php = shutil.which("php")
    if php is None:
        pytest.skip("php is not installed")
    port = serve()
    with connect(f"ws://127.0.0.1:{port}/") as client:
        client.send("LHTTP/1.0 chat\r\nsubscribe:room.a\r\nreceipt:1\r\n\r\n")
        client.recv(timeout=TIME_LIMIT)
        command = [php, EXAMPLES / "publish.php", f"http://127.0.0.1:{port}/publish", "room.a", "hello"]
        subprocess.run(command, check=True, timeout=TIME_LIMIT)
        assert client.recv(timeout=TIME_LIMIT) == "LHTTP/1.0 chat\r\npublish:room.a\r\n\r\nhello"


def test_plugin_package_is_found_once_installed(start: Start, tmp_path: Path) -> None:
    source, target, port = tmp_path / "source", tmp_path / "target", free_port()
    shutil.copytree(EXAMPLES / "plugin_package", source)
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", target, source)
    start(TWISTD, "-n", "--pidfile=", "lhttp", "--port", port, ports=(port,), PYTHONPATH=str(target))
    assert exchange(f"ws://127.0.0.1:{port}/", "LHTTP/1.0 shout\r\n\r\nhello") == "LHTTP/1.0 shout\r\n\r\nHELLO"


@pytest.fixture
def token_login(serve: Callable[..., int], start: Start, tmp_path: Path) -> tuple[str, str]:
    """Return the URLs of the web backend and of the server of the example token_login."""
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 4 + "\n")
    port = serve("--jwt-key-file", secret, "--jwt-audience", "chat", "--login-timeout", 10)
    backend = free_port()
    start(EXAMPLES / "token_login/backend.py", backend, secret, port, ports=(backend,))
    return f"http://127.0.0.1:{backend}", f"ws://127.0.0.1:{port}/"


def fetch_json(url: str, content: object = None, cookie: str = "") -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a GET, or of a POST of *content*."""
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", "Cookie": cookie})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=TIME_LIMIT) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_token_login_lets_those_in_whom_its_backend_knows(token_login: tuple[str, str]) -> None:
    backend, url = token_login
    assert fetch_json(f"{backend}/token")[0] == 401
    assert fetch_json(f"{backend}/login", {"user": "alice", "password": "marmalade"})[0] == 403
    status, headers, _ = fetch_json(f"{backend}/login", {"user": "alice", "password": "sesame"})
    assert status == 200
    token = json.loads(fetch_json(f"{backend}/token", cookie=headers["Set-Cookie"].partition(";")[0])[2])["token"]
    answer = exchange(url, f"LHTTP/1.0 login\r\ntoken:{token}\r\n\r\n")
    assert answer.startswith("LHTTP/1.0 login\r\nuser:alice\r\nexpires:")
    assert "token has a wrong signature" in exchange(url, f"LHTTP/1.0 login\r\ntoken:{token[:-9]}AAAAAAAAA\r\n\r\n")
    assert "log in first" in exchange(url, "LHTTP/1.0 chat\r\nsubscribe:room\r\n\r\n")


def test_token_login_serves_a_page_that_knows_where_to_connect(token_login: tuple[str, str]) -> None:
    backend, url = token_login
    assert url.rpartition(":")[2].encode() in get(f"{backend}/")


def test_a_mailbox_keeps_messages_over_a_restart(start: Start, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "passwords").write_text("jack:sesame\nmike:poppy\n", "utf-8")
    (tmp_path / "passwords").chmod(0o600)
    config = (EXAMPLES / "mailbox.toml").read_text("utf-8").replace("port = 8081", f"port = {port}")
    config = config.replace("file:passwords", f"file:{tmp_path}/passwords").replace(
        "sqlite:mailbox", f"sqlite:{tmp_path}/mailbox"
    )
    (tmp_path / "mailbox.toml").write_text(config, "utf-8")
    arguments = (TWISTD, "-n", "--pidfile=", "lhttp", "--config", tmp_path / "mailbox.toml")
    mike, jack = ({"Authorization": f"Basic {word}"} for word in ("bWlrZTpwb3BweQ==", "amFjazpzZXNhbWU="))
    url = f"ws://127.0.0.1:{port}/"
    server = start(*arguments, ports=(port,))
    with connect(url, additional_headers=mike) as sender:
        for number in range(3):
            sender.send(f"LHTTP/1.0 chat\r\npublish:user.jack\r\nreceipt:1\r\n\r\n{number}")
            assert "position:user.jack=" in sender.recv(timeout=TIME_LIMIT)
        sender.send("LHTTP/1.0 chat\r\nsubscribe:user.jack\r\nlast:3\r\n\r\n")
        assert "status:403" in sender.recv(timeout=TIME_LIMIT)
    server.stop()
    start(*arguments, ports=(port,))
    with connect(url, additional_headers=jack) as reader:
        reader.send("LHTTP/1.0 chat\r\nsubscribe:user.jack\r\nlast:100\r\nreceipt:2\r\n\r\n")
        received = [str(reader.recv(timeout=TIME_LIMIT)) for _ in range(4)]
    assert [text[-1] for text in received[:3]] == ["0", "1", "2"]
    assert "position:user.jack=" in received[3]


def test_rooms_serve_their_page_and_tell_who_is_there(start: Start) -> None:
    port = free_port()
    start(EXAMPLES / "rooms/server.py", port, ports=(port,))
    assert b"/chat/lhttp.mjs" in get(f"http://127.0.0.1:{port}/")
    with connect(f"ws://127.0.0.1:{port}/chat?name=jack") as jack:
        jack.send("LHTTP/1.0 chat\r\nsubscribe:$presence.room.a room.a\r\n\r\n")
        assert '"event":"join","channel":"room.a","user":"jack"' in str(jack.recv(timeout=TIME_LIMIT))
        with connect(f"ws://127.0.0.1:{port}/chat?name=jack"), pytest.raises(ConnectionClosedError) as closed:
            jack.recv(timeout=TIME_LIMIT)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4409, "logged in elsewhere")


def test_private_channels_are_their_owners(serve: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    config = (EXAMPLES / "private_channels.toml").read_text(encoding="utf-8")
    (tmp_path / "private_channels.toml").write_text(config.replace('"secret"', f'"{tmp_path}/secret"'), "utf-8")
    url = f"ws://127.0.0.1:{serve('--config', tmp_path / 'private_channels.toml')}/"
    alice, bob = ({"Authorization": f"Bearer {make_token(sub=name)}"} for name in ("alice", "bob"))
    staff = {"Authorization": f"Bearer {make_token(sub='carol', role='staff')}"}
    with connect(url, additional_headers=alice) as mine, connect(url, additional_headers=bob) as other:
        mine.send("LHTTP/1.0 chat\r\nsubscribe:user.alice\r\nreceipt:1\r\n\r\n")
        assert "receipt-id:1" in mine.recv(timeout=TIME_LIMIT)
        other.send("LHTTP/1.0 chat\r\nsubscribe:user.alice\r\n\r\n")
        assert "not allowed to subscribe to channel 'user.alice'" in other.recv(timeout=TIME_LIMIT)
        other.send("LHTTP/1.0 chat\r\npublish:user.alice\r\n\r\nhello")
        assert mine.recv(timeout=TIME_LIMIT).endswith("hello")
        for channel in ("staff.room", "elsewhere"):
            other.send(f"LHTTP/1.0 chat\r\npublish:{channel}\r\n\r\nhello")
            assert f"not allowed to publish to channel '{channel}'" in other.recv(timeout=TIME_LIMIT)
    with connect(url, additional_headers=staff) as carol:
        carol.send("LHTTP/1.0 chat\r\nsubscribe:staff.room\r\npublish:staff.room\r\n\r\nhello")
        assert carol.recv(timeout=TIME_LIMIT).endswith("hello")


def test_embedded_server_is_asked_by_its_program(start: Start) -> None:
    port, web = free_port(), free_port()
    start(EXAMPLES / "embedded.py", port, web, ports=(port, web))
    with connect(f"ws://127.0.0.1:{port}/?name=jack") as jack:
        jack.send("LHTTP/1.0 echo\r\nsubscribe:room.a\r\n\r\n")
        assert jack.recv(timeout=TIME_LIMIT) == "LHTTP/1.0 echo\r\n\r\n"
        assert json.loads(get(f"http://127.0.0.1:{web}/people/room.a")) == ["jack"]
        assert fetch_json(f"http://127.0.0.1:{web}/close/jack", {})[2] == b"1\n"
        with pytest.raises(ConnectionClosedError, match="please leave"):
            jack.recv(timeout=TIME_LIMIT)
    subscribe = "LHTTP/1.0 x\r\nsubscribe:clock\r\n\r\n"
    assert exchange(f"ws://127.0.0.1:{port}/", subscribe).startswith("LHTTP/1.0 time\r\npublish:clock\r\n\r\n")


def test_relay_bus_joins_two_servers(start: Start) -> None:
    relay, ports = free_port(), [free_port(), free_port()]
    address = f"tcp:127.0.0.1:{relay}"
    start(EXAMPLES / "relay_bus.py", f"tcp:{relay}:interface=127.0.0.1", ports=(relay,))
    for port in ports:
        bus = f"{EXAMPLES}/relay_bus.py:bus"
        start(TWISTD, "-n", "--pidfile=", "lhttp", "--port", port, "--bus", bus, ports=(port,), RELAY=address)
    for port in ports:
        deadline = time.monotonic() + TIME_LIMIT
        while json.loads(get(f"http://127.0.0.1:{port}/health"))["status"] != "ok":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with connect(f"ws://127.0.0.1:{ports[0]}/") as reader, connect(f"ws://127.0.0.1:{ports[1]}/") as writer:
        reader.send("LHTTP/1.0 chat\r\nsubscribe:room.a\r\nreceipt:1\r\n\r\n")
        reader.recv(timeout=TIME_LIMIT)
        for text in ("hello", "again"):
            writer.send(f"LHTTP/1.0 chat\r\npublish:room.a\r\nreceipt:1\r\n\r\n{text}")
            assert str(writer.recv(timeout=TIME_LIMIT)).startswith("LHTTP/1.0 receipt")
        received = [str(reader.recv(timeout=TIME_LIMIT)) for _ in range(2)]
        assert [text.rpartition("\r\n")[2] for text in received] == ["hello", "again"]


def test_every_example_is_run_here() -> None:
    here = "".join(
        Path(__file__).with_name(name).read_text() for name in ("test_examples.py", "test_client.py", "test_metrics.py")
    )
    names = [path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__"]
    assert [name for name in names if name not in here] == []


def get(url: str | urllib.request.Request) -> bytes:
    """Return the body behind a URL."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=TIME_LIMIT) as response:
        body: bytes = response.read()
    return body
