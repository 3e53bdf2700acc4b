"""The main job, done by real clients against the real process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from shutil import which
from subprocess import run

import pytest
from websockets.exceptions import ConnectionClosed

from integration._server import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    TIME_LIMIT,
    Backend,
    RawClient,
    ServerProcess,
    client_frame,
    message,
    open_client,
    processor_arguments,
    recv_bytes,
)

INTERNAL_ERROR = message("error", {"status": "500", "reason": "internal error"})


@pytest.mark.skipif(which("curl") is None, reason="curl is not installed")
def test_main_job(serve: Callable[..., ServerProcess], backend: Backend, tmp_path: Path) -> None:
    processors = tmp_path / "my_processors.py"
    processors.write_text(
        "from lhttp_tx import processor\n\n"
        "@processor('greet')\n"
        "def greet(request):\n"
        "    request.reply('hello ' + request.text)\n\n"
        "@processor('upload')\n"
        "async def upload(request):\n"
        "    request.reply('|'.join(part.headers.get('k1', '') + part.headers.get('k2', '') + '='\n"
        "                           + part.body.decode() for part in request.parts), headers={})\n",
        encoding="utf-8",
    )
    server = serve(
        *("--processor", f"{processors}:greet", "--processor", "my_processors:upload"),
        *("--upstream-allow", f"{backend.url}/record"),
    )
    with ExitStack() as stack:
        jack, jill, mike = (stack.enter_context(open_client(server.port)) for _ in range(3))
        for client in (jack, jill):
            client.send(message("chat", {"subscribe": "room", "receipt": "in"}))
            assert client.recv(TIME_LIMIT) == message("receipt", {"receipt-id": "in"})

        hello = message("chat", {"content-type": "json", "publish": "room"}, '{"to":"jill"}')
        jack.send(hello)
        assert [jack.recv(TIME_LIMIT), jill.recv(TIME_LIMIT)] == [hello, hello]

        posted = message("chat", {"publish": "room"}, "from curl")
        url = f"http://127.0.0.1:{server.port}/publish"
        curl = run(
            ["curl", "-sS", "--noproxy", "*", "-X", "POST", "--data-binary", posted, url],
            capture_output=True,
            timeout=TIME_LIMIT,
            check=True,
        )
        assert curl.stdout == b'{"channels": ["room"]}\n'
        assert [jack.recv(TIME_LIMIT), jill.recv(TIME_LIMIT)] == [posted, posted]

        recorded = message("chat", {"upstream": f"POST {backend.url}/record", "publish": "room"}, "for the record")
        mike.send(recorded)
        published = message("chat", {"publish": "room"}, "for the record")
        assert [jack.recv(TIME_LIMIT), jill.recv(TIME_LIMIT)] == [published, published]
        backend.wait_for(1)
        assert backend.bodies() == [recorded.encode("utf-8")]

        mike.send(message("greet", {}, "mike"))
        assert mike.recv(TIME_LIMIT) == message("greet", {}, "hello mike")
        mike.send(message("upload", {"multipart": "0 14"}, "k1:v1\r\n\r\nbody1k2:v2\r\n\r\nbody2"))
        assert mike.recv(TIME_LIMIT) == message("upload", {}, "v1=body1|v2=body2")

        os.kill(server.pid, signal.SIGTERM)
        for client in (jack, jill, mike):
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(TIME_LIMIT)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "server is going away")
        assert server.process.wait(TIME_LIMIT) == -signal.SIGTERM


@pytest.mark.parametrize("command", ["echo", "deferred", "coroutine"])
def test_processor_of_every_kind_answers(server: ServerProcess, command: str) -> None:
    with open_client(server.port) as client:
        client.send(message(command, {"content-type": "json"}, "{}"))
        assert client.recv(TIME_LIMIT) == message(command, {"content-type": "json"}, "{}")


def test_binary_message_is_answered_in_binary(server: ServerProcess) -> None:
    sent = message("echo").encode("ascii") + b"\x00\xff\r\n\r\n"
    with open_client(server.port) as client:
        client.send(sent)
        assert recv_bytes(client) == (sent, True)


def test_answers_keep_the_order_of_the_messages(server: ServerProcess) -> None:
    commands = ["deferred", "echo", "coroutine", "boom-later", "refuse", "echo", "deferred", "echo"] * 5
    with open_client(server.port) as client:
        for number, command in enumerate(commands):
            client.send(message(command, {"n": str(number), "receipt": str(number)}))
        for number, command in enumerate(commands):
            if command == "boom-later":
                expected = [message("error", {"status": "500", "reason": "internal error", "receipt-id": str(number)})]
            elif command == "refuse":
                expected = [
                    message("error", {"status": "409", "reason": "the seat is taken", "receipt-id": str(number)})
                ]
            else:
                echoed = message(command, {"n": str(number)})
                expected = [echoed, message("receipt", {"receipt-id": str(number)})]
            assert [client.recv(TIME_LIMIT) for _ in expected] == expected
    server.expect_traceback("RuntimeError: boom went the coroutine")  # those of one line are told once, and counted


def test_connections_do_not_wait_for_each_other(server: ServerProcess) -> None:
    with open_client(server.port) as slow, open_client(server.port) as quick:
        slow.send(message("hang"))
        quick.send(message("echo", {}, "still served"))
        assert quick.recv(TIME_LIMIT) == message("echo", {}, "still served")


@pytest.mark.parametrize(
    ("command", "logged"),
    [
        ("boom", "RuntimeError: boom went the processor"),
        ("wrong", "wrong returned 'hello'; return None, a Deferred, a coroutine or another awaitable"),
    ],
)
def test_failing_processor_costs_an_error_and_a_traceback(server: ServerProcess, command: str, logged: str) -> None:
    with open_client(server.port) as client:
        client.send(message(command))
        assert client.recv(TIME_LIMIT) == INTERNAL_ERROR
        client.send(message("echo", {}, "alive"))
        assert client.recv(TIME_LIMIT) == message("echo", {}, "alive")
    server.expect_traceback(logged)


def test_hanging_processor_is_cancelled_at_its_time_limit(serve: Callable[..., ServerProcess]) -> None:
    server = serve(*processor_arguments("hang", "echo"), "--processor-timeout", "0.5")
    with open_client(server.port) as client:
        begin = time.monotonic()
        client.send(message("hang"))
        client.send(message("echo", {}, "next"))
        assert client.recv(TIME_LIMIT) == message("error", {"status": "500", "reason": "not done within 0.5 seconds"})
        assert time.monotonic() - begin >= 0.5
        assert client.recv(TIME_LIMIT) == message("echo", {}, "next")
    server.wait_for_log("hang was cancelled")


def test_full_queue_pauses_reading_and_loses_nothing(serve: Callable[..., ServerProcess]) -> None:
    server = serve(*processor_arguments("coroutine"), "--max-queue", "2")
    with RawClient(server.port) as client:
        messages = [message("coroutine", {}, str(number)).encode("ascii") for number in range(50)]
        client.sock.sendall(b"".join(client_frame(sent) for sent in messages))
        assert [client.receive() for _ in messages] == [(TEXT, sent) for sent in messages]


def test_processor_sets_command_and_headers_of_its_reply(server: ServerProcess) -> None:
    with open_client(server.port) as client:
        client.send(message("other", {"content-type": "json", "content-length": "10"}, "jsonbody"))
        assert client.recv(TIME_LIMIT) == message("auth", {"content-type": "image/png"}, "jsonbody")


def test_processor_vetoes_what_is_published(server: ServerProcess) -> None:
    with open_client(server.port) as client:
        client.send(message("chat", {"subscribe": "vetoed"}))
        client.send(message("veto", {"publish": "vetoed", "receipt": "1"}, "never seen"))
        assert client.recv(TIME_LIMIT) == message("receipt", {"receipt-id": "1"})


def test_processor_changes_what_is_published(server: ServerProcess) -> None:
    with open_client(server.port) as client:
        client.send(message("chat", {"subscribe": "changed"}))
        client.send(message("rewrite", {"publish": "changed"}, "quiet"))
        assert client.recv(TIME_LIMIT) == message("rewritten", {"by": "processor"}, "QUIET")


def test_processor_subscribes_publishes_and_unsubscribes(server: ServerProcess) -> None:
    with open_client(server.port) as old, open_client(server.port) as new:
        for client in (old, new):
            client.send(message("join", {"receipt": "1"}, "joinable"))
            assert client.recv(TIME_LIMIT) == message("receipt", {"receipt-id": "1"})
        joined = message("joined", {"publish": "joinable"}, "somebody came")
        assert old.recv(TIME_LIMIT) == joined
        new.send(message("leave", {"receipt": "2"}, "joinable"))
        assert new.recv(TIME_LIMIT) == message("receipt", {"receipt-id": "2"})
        old.send(message("chat", {"publish": "joinable", "receipt": "3"}))
        assert old.recv(TIME_LIMIT) == message("chat", {"publish": "joinable"})
        new.send(message("echo", {}, "nothing came before this"))
        assert new.recv(TIME_LIMIT) == message("echo", {}, "nothing came before this")


def test_processor_closes_the_connection(server: ServerProcess) -> None:
    with open_client(server.port) as client:
        client.send(message("hang-up"))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(TIME_LIMIT)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "bye")


@pytest.mark.parametrize("end", ["clean", "hang up", "reset"])
def test_processor_is_told_of_the_begin_and_the_end_of_a_connection(server: ServerProcess, end: str) -> None:
    with RawClient(server.port) as watcher:
        watcher.subscribe("visits")
        visitor = RawClient(server.port)
        for count in (1, 2):
            visitor.send(message("visit"))
            assert visitor.receive() == (TEXT, message("visit", {}, str(count)).encode("ascii"))
        if end == "clean":
            visitor.send(b"\x03\xe8", CLOSE)
            assert visitor.receive() == (CLOSE, b"\x03\xe8")
        if end == "reset":
            visitor.reset()
        else:
            visitor.close()
        assert watcher.receive() == (TEXT, message("opened", {"publish": "visits"}).encode("ascii"))
        assert watcher.receive() == (TEXT, message("closed", {"publish": "visits"}, "2").encode("ascii"))


def test_filter_stops_a_message_before_and_after_its_processor(serve: Callable[..., ServerProcess]) -> None:
    guard = processor_arguments("Guard")[1]
    server = serve(*processor_arguments("echo"), "--filter", guard)
    with open_client(server.port) as client:
        client.send(message("echo", {"secret": "before"}))
        assert client.recv(TIME_LIMIT) == message("error", {"status": "403", "reason": "no secrets here"})
        client.send(message("echo", {"secret": "after"}))
        assert client.recv(TIME_LIMIT) == message("echo", {"secret": "after"})
        assert client.recv(TIME_LIMIT) == message("error", {"status": "403", "reason": "too late for secrets"})
        client.send(message("echo", {"secret": "neither"}))
        assert client.recv(TIME_LIMIT) == message("echo", {"secret": "neither"})


def test_fragmented_message_is_one_message(server: ServerProcess) -> None:
    whole = message("echo", {}, "in pieces").encode("ascii")
    with RawClient(server.port) as client:
        pieces = [whole[index : index + 5] for index in range(0, len(whole), 5)]
        client.send(pieces[0], TEXT, final=False)
        for piece in pieces[1:-1]:
            client.send(piece, 0, final=False, mask=b"mask")
        client.send(b"are you there", PING)
        client.send(pieces[-1], 0)
        assert client.receive() == (PONG, b"are you there")
        assert client.receive() == (TEXT, whole)


def test_bytes_that_arrive_one_by_one_are_one_message(server: ServerProcess) -> None:
    whole = message("echo", {}, "drip").encode("ascii")
    with RawClient(server.port) as client:
        for byte in client_frame(whole, mask=b"drip"):
            client.sock.sendall(bytes([byte]))
        assert client.receive() == (TEXT, whole)


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536])
def test_message_of_each_frame_size_comes_back_whole(server: ServerProcess, size: int) -> None:
    head = message("echo").encode("ascii")
    whole = head + bytes(index % 251 for index in range(size - len(head)))
    with RawClient(server.port) as client:
        client.send(whole, BINARY, mask=b"\x01\x80\xfe\x33")
        assert client.receive() == (BINARY, whole)


def test_message_past_the_limit_costs_an_error(server: ServerProcess) -> None:
    with open_client(server.port) as client:
        client.send(message("echo", {}, "x" * 65_536))
        assert client.recv(TIME_LIMIT).startswith("LHTTP/1.0 error\r\nstatus:413\r\n")  # type: ignore[arg-type]
        client.send(message("echo", {}, "smaller"))
        assert client.recv(TIME_LIMIT) == message("echo", {}, "smaller")


def test_message_above_twice_the_limit_closes_the_connection(server: ServerProcess) -> None:
    with open_client(server.port) as client, pytest.raises(ConnectionClosed) as closed:
        client.send("x" * 131_073)
        client.recv(TIME_LIMIT)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_fragments_above_twice_the_limit_close_the_connection(server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.send("x" * 65_000, TEXT, final=False)
        client.send("x" * 65_000, 0, final=False)
        client.send("x" * 65_000, 0, final=False)
        assert client.receive_close()[0] == 1009


def test_frame_that_declares_a_terabyte_closes_the_connection_at_once(server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.sock.sendall(b"\x81\xff" + (2**40).to_bytes(8, "big") + b"\0\0\0\0" + b"LHTTP")
        assert client.receive_close()[0] == 1009


def test_text_that_is_not_utf8_closes_the_connection(server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.send(message("echo").encode("ascii") + b"\xff")
        assert client.receive_close()[0] == 1007
