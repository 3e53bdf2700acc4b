"""A muted user: refused however it publishes, on real servers and clusters, over HTTP, gRPC and with the command."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from integration._device import TCP, Device
from integration._http_client import HTTPClient
from integration._nats import NATSProcess, needs_nats
from integration._server import http_request, message, open_client, recv_bytes, wait_until
from integration.test_admin_api import Admin, start, subscribe
from integration.test_codecs import CODECS, Member

__all__ = ["start"]

LOGIN = message("login", {"user": "jack", "password": "marmalade"})
TOLD = "403 muted: you may publish again in "


def publication(body: str, **headers: str) -> str:
    return message("chat", {"publish": "room", **headers}, body)


def refusal(answer: bytes | str) -> str:
    """Return the status and the reason of an error."""
    text = answer if isinstance(answer, str) else answer.decode()
    assert text.startswith("LHTTP/1.0 error\r\n"), text
    headers = dict(line.split(":", 1) for line in text.split("\r\n")[1:] if ":" in line)
    return f"{headers['status']} {headers['reason']}"


def hears(admin: Admin, count: int) -> bool:
    """Return whether *count* nodes answer."""
    found = admin.call("info")
    return found["nodes"] == count and not found["unanswered"]


@pytest.fixture
def nats() -> Iterator[NATSProcess]:
    process = NATSProcess()
    yield process
    process.stop()


def test_a_muted_user_is_refused_on_every_transport(start: Callable[..., Admin], tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("jack:marmalade\n", "utf-8")
    (tmp_path / "passwords").chmod(0o600)
    without_logins = (tmp_path / "lhttp.toml").read_text("utf-8").replace('login-parameter = "name"', "")
    (tmp_path / "lhttp.toml").write_text(without_logins, "utf-8")
    admin = start("--auth", "file:passwords", "--login-timeout", "60", *TCP)
    port = admin.server.port
    plain = int(admin.server.log.split("listening on 127.0.0.1:")[-1].split(" ")[0])
    with ExitStack() as opened:
        members = []
        for name in CODECS:
            member = Member(opened.enter_context(open_client(port, subprotocols=[name])), name)
            member.send("login", {"user": "jack", "password": "marmalade"})
            assert member.take()[0] == "login"
            members.append(member)
        device = Device(plain)
        device.send(LOGIN)
        assert b"login" in device.receive()
        caller = HTTPClient(port, headers={"Authorization": "Basic amFjazptYXJtYWxhZGU="})
        heard = opened.enter_context(open_client(port))
        heard.send(LOGIN)
        assert b"login" in recv_bytes(heard)[0]
        subscribe(heard, "room")

        def publish(body: str) -> None:
            for member in members:
                member.send("chat", {"publish": "room"}, body.encode())
            device.send(publication(body))
            assert caller.send(publication(body)) == 204

        publish("before")
        assert [recv_bytes(heard)[0].endswith(b"before") for _ in range(5)] == [True] * 5
        assert admin.call("mute", user="jack")["count"] == 6
        publish("muted")
        assert [member.take()[0] for member in members] == ["error"] * 3
        assert refusal(device.receive()).startswith(TOLD)
        assert refusal(caller.wait_for(1).pop()).startswith(TOLD)
        # A program that may publish for the operator has no user, so nobody can mute it.
        assert http_request(port, "POST", "/publish", publication("of a program"))[0] == 200
        assert recv_bytes(heard)[0].endswith(b"of a program")
        assert admin.call("unmute", user="jack")["count"] == 6
        publish("after")
        assert [recv_bytes(heard)[0].endswith(b"after") for _ in range(5)] == [True] * 5
        caller.end()
        device.sock.close()
    admin.server.wait_for_log("muted the user 'jack' for 600 s, as the key operator said")
    admin.server.wait_for_log("lifted the mute of the user 'jack', as the key operator said")


def test_a_mute_of_one_connection_is_shown_and_ends(start: Callable[..., Admin]) -> None:
    admin = start()
    with open_client(admin.server.port, "/?name=jack") as jack:
        subscribe(jack, "room")
        connection = admin.call("connections")["connections"][0]["connection"]
        assert [admin.call("connection", connection=connection)[name] for name in ("muted", "user_muted")] == [0, 0]
        assert admin.call("mute", connection=connection, seconds=3)["count"] == 1
        found = admin.call("connection", connection=connection)
        assert (1 <= found["muted"] <= 3, found["user_muted"]) == (True, 0)
        jack.send(publication("while muted"))
        assert refusal(recv_bytes(jack)[0]).startswith(TOLD)
        wait_until(lambda: not admin.call("connection", connection=connection)["muted"], "the end of the mute")
        jack.send(publication("later"))
        assert recv_bytes(jack)[0].endswith(b"later")


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"user": "jack", "seconds": 0}, 400),
        ({"user": "jack", "seconds": 604_801}, 400),
        ({"user": "jack", "seconds": "600"}, 400),
        ({"user": "jack", "connection": "c"}, 400),
        ({}, 400),
        ({"user": "jack", "seconds": 604_800}, 200),
    ],
)
def test_what_a_mute_may_be(start: Callable[..., Admin], params: dict[str, Any], status: int) -> None:
    assert start().ask("mute", params)[0] == status


def test_the_command_mutes(start: Callable[..., Admin]) -> None:
    admin = start()
    with open_client(admin.server.port, "/?name=jack") as jack:
        subscribe(jack, "room")
        assert admin.run("mute", "--user", "jack", "--seconds", "60").stdout == "count\t1\n"
        jack.send(publication("muted"))
        assert refusal(recv_bytes(jack)[0]).startswith(TOLD)
        assert re.fullmatch(r"user\tseconds\njack\t(60|[1-5]?\d)\n", admin.run("mutes").stdout)
        assert admin.run("unmute", "--user", "jack").stdout == "count\t1\n"
        assert admin.run("mutes").stdout == "user\tseconds\n"
        jack.send(publication("free"))
        assert recv_bytes(jack)[0].endswith(b"free")
    done = admin.run("mute")
    assert (done.returncode, "name either a user or a connection" in done.stderr) == (1, True)


def test_muted_users_are_listed_page_by_page(start: Callable[..., Admin]) -> None:
    admin = start()
    for number in (3, 1, 2):
        admin.call("mute", user=f"u{number}", seconds=1_000 * number)
    first = admin.call("mutes", limit=2)
    assert [row["user"] for row in first["mutes"]] == ["u1", "u2"]
    (row,) = admin.call("mutes", limit=2, cursor=first["next"])["mutes"]
    assert (row["user"], 2_000 < row["seconds"] <= 3_000) == ("u3", True)


@needs_nats
def test_a_user_is_muted_on_every_node_and_on_one_that_joins_later(
    start: Callable[..., Admin], nats: NATSProcess
) -> None:
    one, two = (start("--nats", nats.url) for _ in range(2))
    for admin in (one, two):
        wait_until(lambda admin=admin: hears(admin, 2), "two nodes")  # type: ignore[misc]
    with ExitStack() as opened:

        def join(admin: Admin) -> Any:
            return opened.enter_context(open_client(admin.server.port, "/?name=jack"))

        def is_muted(client: Any) -> bool:
            client.send(publication("hello", receipt="r"))
            answer = recv_bytes(client)[0]
            return not answer.startswith(b"LHTTP/1.0 receipt") and refusal(answer).startswith(TOLD)

        here, there = join(one), join(two)
        assert not is_muted(here)
        assert not is_muted(there)
        assert one.call("mute", user="jack", seconds=3_600) == {"count": 2, "unanswered": []}
        assert [is_muted(client) for client in (here, there, join(one), join(two))] == [True] * 4
        row = two.call("connections", user="jack")["connections"][0]
        assert 3_000 < one.call("connection", connection=row["connection"])["user_muted"] <= 3_600
        three = start("--nats", nats.url)
        wait_until(lambda: hears(three, 3), "three nodes")
        late = join(three)
        wait_until(lambda: is_muted(late), "the mute on the new node")
        assert three.call("unmute", user="jack")["count"] == 5
        assert [is_muted(client) for client in (here, there, late)] == [False] * 3
