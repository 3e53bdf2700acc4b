"""Every subcommand of ``lhttp`` as it is typed, against a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration._client import Terminal, lhttp, start_lhttp, url_of
from integration._docs import ROOT, Process, free_port
from integration._server import (
    TIME_LIMIT,
    ServerProcess,
    message,
    open_client,
    recv_bytes,
    script,
    wait_until,
)

EXAMPLES = ROOT / "examples"
TOKEN = "a-token-that-is-long-enough"


@pytest.fixture
def url(server: ServerProcess) -> str:
    return url_of(server.port)


@pytest.fixture
def nobody() -> str:
    """The URL of a server that is not there."""
    return url_of(free_port())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start the command in the background; it is ended with the test."""
    started: list[Process] = []

    def start_command(*arguments: object) -> Process:
        started.append(start_lhttp(tmp_path, *arguments))
        return started[-1]

    yield start_command
    for process in started:
        process.stop()


def wait_for_subscriber(url: str, channel: str, process: Process) -> None:
    """Publish until a subscriber has got it."""
    for _ in range(20):
        lhttp("publish", channel, "ready?", "--url", url)
        if "ready?" in process.output:
            return
    pytest.fail(f"it has not subscribed: {process.output}")


# publish and subscribe


def test_a_published_body_is_written_as_a_line(url: str, start: Callable[..., Process]) -> None:
    listening = start("subscribe", "cmd.a", "cmd.b", "--url", url)
    wait_for_subscriber(url, "cmd.a", listening)
    assert lhttp("publish", "cmd.b", "tab\tline\nescape\x1b[2J back\\slash", "--url", url).returncode == 0
    listening.wait_for_output("cmd.b\ttab\\tline\\nescape\\u001b[2J back\\\\slash\n")


@pytest.mark.parametrize("codec", ["text", "json", "protobuf"])
def test_the_codec_makes_no_difference(url: str, start: Callable[..., Process], codec: str) -> None:
    channel = f"cmd.{codec}"
    listening = start("subscribe", channel, "--url", url, "--codec", codec, "--json")
    wait_for_subscriber(url, channel, listening)
    assert lhttp("publish", channel, "--url", url, "--codec", codec, input=b"\xff\r\n").returncode == 0
    wait_until(lambda: "body_base64" in listening.output, "the publication arrives")
    done = lhttp("publish", channel, "x", "--url", url, "--codec", codec, "--http")
    assert done.returncode == (0 if codec == "text" else 2)


def test_the_body_may_come_from_standard_input_or_a_file(server: ServerProcess, url: str, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\x00\xff")
    with open_client(server.port) as client:
        client.send(message("chat", {"subscribe": "cmd.in", "receipt": "1"}))
        recv_bytes(client)
        publish = ("publish", "cmd.in", "--url", url, "--message-id")
        assert lhttp(*publish, "1", "--header", "from:jack", input="from stdin\n").returncode == 0
        head = b"LHTTP/1.0 chat\r\npublish:cmd.in\r\nfrom:jack\r\nmessage-id:1\r\n"
        assert recv_bytes(client) == (head + b"\r\nfrom stdin\n", False)
        assert lhttp(*publish, "2", "--file", tmp_path / "body", "--command", "raw").returncode == 0
        head = b"LHTTP/1.0 raw\r\npublish:cmd.in\r\nmessage-id:2\r\n"
        assert recv_bytes(client) == (head + b"\r\n\x00\xff", True)


def test_wildcards_and_presence_are_subscribed_to(
    serve: Callable[..., ServerProcess], tmp_path: Path, start: Callable[..., Process]
) -> None:
    rules = '[[channel]]\nmatch = "room.>"\nwildcards = true\n[[channel]]\nmatch = "hall"\npresence = true\n'
    (tmp_path / "rules.toml").write_text(rules)
    server = serve("--config", str(tmp_path / "rules.toml"))
    url = url_of(server.port)
    listening = start("subscribe", "room.*", "room.>", "$presence.hall", "--url", url, "--verbose")
    listening.wait_for_output(" connected")
    lhttp("publish", "room.a", "one", "--url", url)
    lhttp("publish", "room.a.b", "two", "--url", url)
    listening.wait_for_output("room.a.b\ttwo\n")
    with open_client(server.port) as client:
        client.send(message("chat", {"subscribe": "hall"}))
        listening.wait_for_output("$presence.hall\t")
    assert listening.output.count("room.a\tone\n") == 2
    refused = lhttp("subscribe", "other.*", "--url", url, "--count", "1")
    assert (refused.returncode, "(status 403)" in refused.stderr) == (1, True)


def test_json_parses_and_count_ends_it(url: str, start: Callable[..., Process]) -> None:
    listening = start("subscribe", "cmd.json", "--url", url, "--json", "--count", "3")
    wait_for_subscriber(url, "cmd.json", listening)
    before = listening.output.count("\n")
    lhttp("publish", "cmd.json", "--url", url, "--lines", input="".join(f"line {n}\n" for n in range(3)))
    wait_until(lambda: listening.output.count("\n") == 3, "three lines")
    found = [json.loads(line) for line in listening.output.splitlines()]
    assert found[before]["body"] == "line 0"
    assert found[before]["channel"] == "cmd.json"
    assert ["publish", "cmd.json"] in found[before]["headers"]


def test_lines_are_published_in_order(server: ServerProcess, url: str) -> None:
    with open_client(server.port, max_queue=None) as client:
        client.send(message("chat", {"subscribe": "cmd.lines", "receipt": "1"}))
        recv_bytes(client)
        done = lhttp("publish", "cmd.lines", "--url", url, "--lines", input="".join(f"{n}\n" for n in range(500)))
        assert done.returncode == 0
        bodies = [recv_bytes(client)[0].rpartition(b"\r\n\r\n")[2] for _ in range(500)]
    assert bodies == [str(n).encode() for n in range(500)]


def test_without_messages_a_timeout_ends_it(url: str) -> None:
    done = lhttp("subscribe", "cmd.silent", "--url", url, "--timeout", "0.2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = lhttp("subscribe", "cmd.silent", "--url", url, "--timeout", "0.2", "--count", "1")
    assert (done.returncode, done.stderr) == (1, "lhttp: 0 of 1 messages came within 0.2 seconds\n")


def test_the_url_may_come_from_the_environment(url: str) -> None:
    assert lhttp("publish", "cmd.env", "x", LHTTP_URL=url).returncode == 0


def test_a_reader_that_goes_away_ends_it_as_it_ends_other_programs(url: str) -> None:
    with subprocess.Popen(
        [script("lhttp"), "subscribe", "cmd.head", "--url", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as listening:
        assert listening.stdout is not None
        assert listening.stderr is not None
        os.set_blocking(listening.stdout.fileno(), False)
        for _ in range(20):
            lhttp("publish", "cmd.head", "x", "--url", url)
            if listening.stdout.read(1):
                break
        listening.stdout.close()
        lhttp("publish", "cmd.head", "x", "--url", url)
        assert listening.wait(TIME_LIMIT) == 141
        assert listening.stderr.read() == b""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_good_order(url: str, start: Callable[..., Process], number: int, status: int) -> None:
    listening = start("subscribe", "cmd.signal", "--url", url, "--verbose")
    listening.wait_for_output(": connected")
    listening._process.send_signal(number)
    assert listening._process.wait(TIME_LIMIT) == status
    assert ": closed" in listening.output


def test_subscribing_goes_on_across_a_restart(
    serve: Callable[..., ServerProcess], start: Callable[..., Process]
) -> None:
    port = free_port()
    listen = ("--port", f"tcp:{port}:interface=127.0.0.1")
    first = serve(listen=listen)
    listening = start("subscribe", "cmd.a", "--url", url_of(port))
    wait_for_subscriber(url_of(port), "cmd.a", listening)
    first.crash()
    listening.wait_for_output("lhttp: the connection was lost; trying again\n")
    serve(listen=listen)
    listening.wait_for_output("lhttp: connected again\n")
    lhttp("publish", "cmd.a", "after", "--url", url_of(port))
    listening.wait_for_output("cmd.a\tafter\n")


@pytest.mark.parametrize(
    "arguments", [("publish", "a", "x"), ("subscribe", "a"), ("upload", __file__), ("bench",), ("chat",)]
)
def test_a_server_that_is_not_there_is_told_in_one_line(nobody: str, arguments: tuple[str, ...]) -> None:
    done = lhttp(*arguments, "--url", nobody)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"lhttp: cannot connect to {nobody}: ")
    assert done.stderr.count("\n") == 1
    assert "twistd lhttp" in done.stderr


# By HTTP


def test_publishing_by_http_needs_no_websocket(server: ServerProcess, url: str) -> None:
    with open_client(server.port) as client:
        client.send(message("chat", {"subscribe": "cmd.http", "receipt": "1"}))
        recv_bytes(client)
        assert lhttp("publish", "cmd.http", "one", "--http", "--url", url).returncode == 0
        assert lhttp("publish", "cmd.http", "two", "--url", url.replace("ws:", "http:")).returncode == 0
        assert [recv_bytes(client)[0][-3:] for _ in range(2)] == [b"one", b"two"]


def test_publishing_by_http_with_a_token(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    url = url_of(serve("--publish-token-file", str(token)).port)
    arguments = ("publish", "a", "x", "--http", "--url", url)
    assert lhttp(*arguments, "--token-file", token).returncode == 0
    assert lhttp(*arguments, LHTTP_PUBLISH_TOKEN=TOKEN).returncode == 0
    refused = lhttp(*arguments)
    assert refused.returncode == 1
    assert "(status 401)" in refused.stderr
    assert "--token-file" in refused.stderr


def test_publishing_by_http_to_nobody(nobody: str) -> None:
    done = lhttp("publish", "a", "x", "--http", "--url", nobody)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


def test_tls_needs_a_certificate_that_is_trusted(
    serve: Callable[..., ServerProcess], certificate: tuple[Path, Path]
) -> None:
    key_file, trusted = certificate
    server = serve(listen=("--port", f"ssl:0:interface=127.0.0.1:privateKey={key_file}:certKey={trusted}"))
    for scheme in ("wss", "https"):
        arguments = ("publish", "a", "x", "--url", f"{scheme}://127.0.0.1:{server.port}/")
        assert lhttp(*arguments, "--ca-file", trusted).returncode == 0
        refused = lhttp(*arguments)
        assert (refused.returncode, "certificate" in refused.stderr) == (3, True)
    assert lhttp(*arguments, "--ca-file", key_file, "--url", f"wss://127.0.0.1:{server.port}/").returncode == 2


# upload


@pytest.fixture
def uploads(serve: Callable[..., ServerProcess]) -> str:
    return url_of(serve("--processor", f"{EXAMPLES}/upload.py:upload").port)


def test_files_are_uploaded_in_one_message(uploads: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "b.bin").write_bytes(bytes(range(256)) * 100)
    done = lhttp("upload", tmp_path / "a.txt", tmp_path / "b.bin", "--url", uploads)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["a.txt 5", "b.bin 25600"]


def test_an_upload_shows_its_progress(uploads: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 50_000)
    done = lhttp("upload", tmp_path / "a", "--url", uploads, "--progress")
    assert done.returncode == 0
    assert "uploading" in done.stderr


@pytest.mark.parametrize("size", [70_000, 1_000_000])
def test_an_upload_that_is_too_large_says_what_to_do(uploads: str, tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(b"x" * size)
    done = lhttp("upload", tmp_path / "a", "--url", uploads)
    assert done.returncode == 1
    assert "--max-message-size" in done.stderr


def test_an_upload_that_nobody_takes_is_a_failure_unless_it_is_published(url: str) -> None:
    done = lhttp("upload", __file__, "--url", url)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "the files were not accepted" in done.stderr
    assert lhttp("upload", __file__, "--url", url, "--channel", "files").returncode == 0


# bench

SILENT = """
from lhttp_tx import Refused, processor

@processor("bench")
def silent(request):
    raise Refused(403, "muted: you may publish again in 60 s")
"""


def test_bench_delivers_everything_and_says_so(url: str) -> None:
    done = lhttp("bench", "--url", url, "--duration", "0.5", "--rate", "200", "--subscribers", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["delivered"] == 3 * found["published"] > 0
    assert (found["lost"], found["repeated"], found["refused"]) == (0, 0, 0)
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] <= found["latency_ms"]["max"]


@pytest.mark.parametrize("rate", ["200", "0"])
def test_bench_tells_what_the_server_refused_from_what_was_lost(
    serve: Callable[..., ServerProcess], tmp_path: Path, rate: str
) -> None:
    """It counted every refused message as lost."""
    (tmp_path / "silent.py").write_text(SILENT, encoding="ascii")
    server = serve("--processor", "silent.py:silent", "--max-errors", "0")
    done = lhttp("bench", "--url", url_of(server.port), "--duration", "0.5", "--rate", rate, "--json")
    assert done.returncode == 1 and "the server refused messages: 403 muted" in done.stderr
    found = json.loads(done.stdout)
    assert found["refused"] > 50
    assert (found["published"], found["delivered"], found["lost"]) == (0, 0, 0)


def test_bench_as_fast_as_possible(url: str) -> None:
    done = lhttp("bench", "--url", url, "--duration", "0.5", "--rate", "0", "--publishers", "2", "--size", "1000")
    assert done.returncode == 0, done.stderr
    assert "lost 0" in done.stdout


# chat


def test_two_chat_by_pipes_and_go_on_across_a_restart(
    serve: Callable[..., ServerProcess], start: Callable[..., Process]
) -> None:
    port = free_port()
    listen = ("--port", f"tcp:{port}:interface=127.0.0.1")
    first = serve(listen=listen)
    jack = start("chat", url_of(port), "--name", "jack", "--room", "cmd.room")
    mike = start("chat", url_of(port), "--name", "mike", "--room", "cmd.room")
    for one, name in ((jack, "jack"), (mike, "mike")):
        one.wait_for_output(f"* you are {name} in cmd.room\n")
    jack.type("hello mike")
    mike.wait_for_output(" jack: hello mike\n")
    first.crash()
    jack.wait_for_output("trying to connect again")
    mike.wait_for_output("trying to connect again")
    jack.type("sent while the server is away")
    serve(listen=listen)
    for one in (jack, mike):
        one.wait_for_output("* connected again\n")
    mike.type("hello jack")
    jack.wait_for_output(" mike: hello jack\n")
    jack.wait_for_output(" jack: sent while the server is away\n")


def test_chat_by_a_pipe_ends_with_it_and_has_sent_everything(server: ServerProcess, url: str) -> None:
    with open_client(server.port) as client:
        client.send(message("chat", {"subscribe": "cmd.pipe", "receipt": "1"}))
        recv_bytes(client)
        done = lhttp("chat", url, "--room", "cmd.pipe", "--name", "jack", input="one\n\n//two\nlast")
        received = [recv_bytes(client)[0] for _ in range(3)]
    assert (done.returncode, "\x1b" in done.stdout) == (0, False)
    head = b"LHTTP/1.0 chat\r\npublish:cmd.pipe\r\nfrom:jack\r\nmessage-id:"
    assert all(payload.startswith(head) for payload in received)
    assert [payload.partition(b"\r\n\r\n")[2] for payload in received] == [b"one", b"/two", b"last"]


def test_chat_says_what_was_refused(serve: Callable[..., ServerProcess]) -> None:
    url = url_of(serve("--processor", f"{EXAMPLES}/chat.py:Chat").port)
    done = lhttp("chat", url, input="hello\n")
    assert done.returncode == 1
    assert "* not sent: log in first\n" in done.stderr


def test_chat_on_a_terminal(url: str) -> None:
    with Terminal("chat", url, "--room", "cmd.tty", "--name", "jack") as terminal:
        terminal.wait_for("jack>")
        terminal.type("hello from a terminal\r")
        terminal.wait_for(" jack: hello from a terminal")
        assert lhttp("chat", url, "--room", "cmd.tty", "--name", "mike", input="and from a pipe\n").returncode == 0
        terminal.wait_for(" mike: and from a pipe")
        assert "\x1b[36m" in terminal.raw or "\x1b[9" in terminal.raw, "no colours"
        terminal.type("/name joe\r")
        terminal.wait_for("you are joe now")
        terminal.type("\x1b[A\x1b[A\r")
        terminal.wait_for(" joe: hello from a terminal")
        terminal.type("/room cmd.other\r")
        terminal.wait_for("you are in cmd.other now")
        terminal.type("/quit\r")
        assert terminal.wait_for_end() == 0


def test_chat_without_colours_where_the_user_wants_none(url: str) -> None:
    with Terminal("chat", url, "--room", "cmd.plain", "--name", "jack", NO_COLOR="1") as terminal:
        terminal.wait_for("jack>")
        terminal.type("hello\r")
        terminal.wait_for(" jack: hello")
        assert "\x1b[90m" not in terminal.raw
        terminal.type("\x03")
        assert terminal.wait_for_end() == 130


# request, presence, token, completion


def test_a_request_prints_the_reply(url: str) -> None:
    assert lhttp("request", "echo", "hi", "--url", url).stdout == "hi\n"
    assert lhttp("request", "echo", "--file", "-", "--url", url, input=b"from stdin\n").stdout == "from stdin\n"
    told = json.loads(lhttp("request", "echo", "é", "--header", "n:1", "--json", "--url", url).stdout)
    assert (told["command"], told["body"], ["n", "1"] in told["headers"]) == ("echo", "é", True)
    assert lhttp("request", "nobody", "--url", url).returncode == 1
    assert lhttp("request", "echo", "a", "--file", "-", "--url", url).returncode == 2


def test_presence_lists_those_who_are_there(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--presence", "hall", "--login-parameter", "user")
    url = url_of(server.port)
    with open_client(server.port, "/?user=j%C3%A4ck") as client:
        client.send(message("x", {"subscribe": "hall", "receipt": "1"}))
        client.recv(TIME_LIMIT)
        assert lhttp("presence", "hall", "--url", url).stdout == "jäck\t1\n"
        assert json.loads(lhttp("presence", "hall", "--json", "--url", url).stdout)["count"] == 1
    assert lhttp("presence", "other", "--url", url).returncode == 1


def test_a_token_logs_in_and_is_read(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32 + "\n", "utf-8")
    made = lhttp("token", "make", "jack", "--key-file", secret, "--audience", "chat", "--claim", "n=[1]").stdout
    (tmp_path / "token").write_text(made, "utf-8")
    server = serve("--jwt-key-file", "secret", "--jwt-audience", "chat", "--require-auth")
    published = lhttp("publish", "a", "x", "--url", url_of(server.port), "--token-file", tmp_path / "token")
    assert (published.returncode, published.stderr) == (0, "")
    read = lhttp("token", "read", "--key-file", secret, input=made)
    header, claims = (json.loads(part + "}") for part in read.stdout.strip().split("\n}")[:2])
    assert (header["alg"], claims["sub"], claims["aud"], claims["n"]) == ("HS256", "jack", "chat", [1])
    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no token", "this is not a token"),
        ("W10.W10.", "parts are not JSON objects"),
        ("e30.eyJleHAiOjF9.", "the token expired "),
        ("e30.e30.", "no claim exp"),
        ("eyJhbGciOiJub25lIn0.e30.", "the algorithm none cannot be checked"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjk5OTk5OTk5OTk5fQ.AAAA", "the signature is wrong"),
    ],
)
def test_a_token_that_is_none_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "secret").write_text("s" * 32, "utf-8")
    done = lhttp("token", "read", "--key-file", tmp_path / "secret", input=text)
    assert done.returncode == 1
    assert told in done.stderr


def test_a_token_is_not_made_with_a_weak_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short", "utf-8")
    done = lhttp("token", "make", "jack", "--key-file", tmp_path / "secret")
    assert (done.returncode, "shorter than 32 bytes" in done.stderr) == (1, True)
    assert lhttp("token", "make", "jack", "--key-file", tmp_path / "secret", "--expires", "soon").returncode == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(shell: str) -> None:
    done = lhttp("completion", shell)
    assert (done.returncode, "_LHTTP_COMPLETE" in done.stdout) == (0, True)


# subscribe --sse


@pytest.fixture
def kept(serve: Callable[..., ServerProcess]) -> str:
    return url_of(serve("--history", "kept").port)


def test_an_event_stream_prints_what_a_websocket_does(kept: str, start: Callable[..., Process]) -> None:
    for text in ("1", "2"):
        lhttp("publish", "kept", text, "--url", kept)
    listening = start("subscribe", "kept", "--sse", "--last", "1", "--count", "3", "--url", kept)
    wait_until(lambda: "kept\t2\n" in listening.output, "the newest message comes first")
    lhttp("publish", "kept", "--url", kept, input=b"\xff\n")
    lhttp("publish", "kept", "tab\tline\n", "--url", kept)
    listening.wait_for_output("kept\ttab\\tline\\n")
    as_json = lhttp("subscribe", "kept", "--sse", "--last", "1", "--count", "1", "--json", "--url", kept)
    assert json.loads(as_json.stdout)["channel"] == "kept"


def test_an_event_stream_goes_on_where_it_was(
    serve: Callable[..., ServerProcess], start: Callable[..., Process], tmp_path: Path
) -> None:
    port = free_port()
    listen = ("--port", f"tcp:{port}:interface=127.0.0.1")
    options = ("--history", "kept", "--history-store", f"sqlite:{tmp_path / 'kept.db'}")
    url = url_of(port)
    first = serve(*options, listen=listen)
    lhttp("publish", "kept", "1", "--url", url)
    listening = start("subscribe", "kept", "--sse", "--last", "9", "--url", url)
    wait_until(lambda: "kept\t1\n" in listening.output, "the first message comes")
    first.stop()
    serve(*options, listen=listen)
    lhttp("publish", "kept", "2", "--url", url)
    listening.wait_for_output("kept\t2\n")
    assert listening.output.count("kept\t1\n") == 1


def test_an_event_stream_ends_as_it_should(kept: str, nobody: str) -> None:
    assert lhttp("subscribe", "kept", "--sse", "--timeout", "1", "--url", kept).returncode == 0
    done = lhttp("subscribe", "kept", "--sse", "--timeout", "1", "--count", "1", "--url", kept)
    assert (done.returncode, done.stderr) == (1, "lhttp: 0 of 1 messages came within 1 seconds\n")
    assert lhttp("subscribe", "$no", "--sse", "--url", kept).returncode == 2
    assert lhttp("subscribe", "$presence.no", "--sse", "--url", kept).returncode == 1
    assert lhttp("subscribe", "a", "--sse", "--url", nobody).returncode == 3
    assert lhttp("subscribe", "a", "--sse", "--codec", "json", "--url", kept).returncode == 2
