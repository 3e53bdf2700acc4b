"""Presence, logins, hooks and control through a real server, on one node."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration._server import RawClient, ServerProcess, client_frame, message, wait_until

Serve = Callable[..., ServerProcess]

HOOKS = '''
import json
from pathlib import Path

from lhttp_tx import Hooks, Refused, processor


class Store(Hooks):
    """Writes down what was not delivered, and what waited too long."""

    def on_undelivered(self, session, messages):
        Path("undelivered.json").write_text(json.dumps([message.text[:8] for message in messages]))

    def on_wait_timeout(self, session, message):
        Path("waited").write_text(message.text)

    async def before_subscribe(self, session, channel):
        if channel == "secret":
            raise Refused(403, "secret is for members")

    def on_message(self, request):
        if request.text == "bad":
            raise Refused(403, "mind your words")

    def before_delivery(self, session, message):
        return message.text != "private"


@processor("slow", timeout=10)
async def slow(request):
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    await deferLater(reactor, 0.5, lambda: None)
'''


def told(client: RawClient) -> str:
    return client.receive()[1].decode()


def test_clients_learn_who_is_there(serve: Serve) -> None:
    server = serve("--presence", "room.*", "--login-parameter", "name", "--presence-grace", "0.2")
    with RawClient(server.port, "/?name=jack") as jack, RawClient(server.port) as listener:
        listener.subscribe("$presence.room.a")
        jack.subscribe("room.a")
        head, _, body = told(listener).partition("\r\n\r\n")
        assert head == (
            "LHTTP/1.0 presence\r\npublish:$presence.room.a\r\nevent:join\r\nchannel:room.a\r\nuser:jack\r\n"
            "content-type:application/json"
        )
        joined = json.loads(body)
        assert (joined["user"], joined["count"], joined["connections"]) == ("jack", 1, 1)
        listener.send(message("presence", {"channel": "room.a"}))
        answer = json.loads(told(listener).partition("\r\n\r\n")[2])
        people = [{"user": "jack", "connections": [joined["connection"]]}]
        assert answer == {"channel": "room.a", "count": 1, "connections": 1, "people": people}
        jack.close()
        assert "event:leave" in told(listener)


@pytest.mark.parametrize(
    ("arguments", "sent", "status", "reason"),
    [
        ((), {"subscribe": "$presence.a"}, 403, "channel '$presence.a' is reserved for the server"),
        (("--presence", "b"), {"subscribe": "$presence.a"}, 404, "channel 'a' has no presence"),
        (("--presence", "a"), {"publish": "$presence.a"}, 403, "channel '$presence.a' is reserved for the server"),
    ],
)
def test_refusals_say_why(
    serve: Serve, arguments: tuple[str, ...], sent: dict[str, str], status: int, reason: str
) -> None:
    with RawClient(serve(*arguments).port) as client:
        client.send(message("x", sent))
        assert told(client) == f"LHTTP/1.0 error\r\nstatus:{status}\r\nreason:{reason}\r\n\r\n"


def test_a_second_login_closes_the_first(serve: Serve) -> None:
    server = serve("--single-login", "--login-parameter", "name")
    with RawClient(server.port, "/?name=jack") as first, RawClient(server.port, "/?name=jack") as second:
        assert first.receive_close() == (4409, "logged in elsewhere")
        second.subscribe("still.here")


@pytest.fixture
def hooked(serve: Serve, tmp_path: Path) -> ServerProcess:
    (tmp_path / "own.py").write_text(HOOKS)
    return serve(
        *("--hooks", str(tmp_path / "own.py:Store"), "--processor", str(tmp_path / "own.py:slow")),
        *("--wait-timeout", "0.2", "--max-unsent", "300000"),
    )


def test_vetoes_are_told(hooked: ServerProcess) -> None:
    with RawClient(hooked.port) as client:
        client.send(message("x", {"subscribe": "secret"}))
        assert told(client) == "LHTTP/1.0 error\r\nstatus:403\r\nreason:secret is for members\r\n\r\n"
        client.send(message("x", {"publish": "room"}, "bad"))
        assert told(client) == "LHTTP/1.0 error\r\nstatus:403\r\nreason:mind your words\r\n\r\n"
        client.subscribe("room")
        client.send(message("x", {"publish": "room"}, "private"))
        client.send(message("x", {"publish": "room"}, "public"))
        assert told(client).endswith("public")


def test_a_message_that_waits_too_long_is_told(hooked: ServerProcess, tmp_path: Path) -> None:
    with RawClient(hooked.port) as client:
        late = message("chat", {"receipt": "1"}, "late")  # in one piece: they come at the same time
        client.sock.sendall(b"".join(client_frame(sent.encode()) for sent in (message("slow"), late)))
        assert told(client) == (
            "LHTTP/1.0 error\r\nstatus:503\r\nreason:message waited longer than 0.2 seconds\r\nreceipt-id:1\r\n\r\n"
        )
    assert find(hooked, "waited").read_text() == "late"


def find(server: ServerProcess, name: str) -> Path:
    path = Path(f"/proc/{server.pid}/cwd").resolve() / name
    wait_until(path.exists, f"{name} is written")
    return path


def test_what_a_slow_client_did_not_get_is_handed_over(hooked: ServerProcess) -> None:
    slow = RawClient(hooked.port, receive_buffer=4_096)
    slow.subscribe("room")
    count = 0
    with RawClient(hooked.port) as publisher:
        while "it does not read" not in hooked.log:
            publisher.send(message("x", {"publish": "room", "receipt": "r"}, f"{count:08}" + "x" * 20_000))
            told(publisher)
            count += 1
            assert count < 2_000
    hooked.wait_for_log("it does not read")
    numbers = [int(text) for text in json.loads(find(hooked, "undelivered.json").read_text())]
    received = list(arrived(slow))
    slow.close()
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert received == list(range(received[-1] + 1))
    assert received[-1] + 1 >= numbers[0], "nothing is missing"


def arrived(client: RawClient) -> Any:
    while True:
        opcode, payload = client.receive()
        if opcode != 1:
            return
        yield int(payload.partition(b"\r\n\r\n")[2][:8])
