"""The API of the admin side: its methods on real servers and clusters, over HTTP and with ``lhttp admin``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration._nats import NATSProcess, needs_nats
from integration._server import (
    TIME_LIMIT,
    ServerProcess,
    http_request,
    message,
    open_client,
    recv_bytes,
    script,
    wait_until,
)

SECRET = "operator-secret-0123456789"
CONFIG = """
login-parameter = "name"
presence = ["room.>"]
[admin]
listen = "tcp:0:interface=127.0.0.1"
[admin.keys.operator]
secret_file = "key"
methods = ["*"]
[admin.keys.editor]
secret_file = "editor"
methods = ["publish", "broadcast", "batch", "channels", "connections", "history"]
channels = ["news.>"]
"""
EDITOR = "editor-secret-0123456789"

SCOPES = (
    ("publish", {"channel": "news.de", "command": "x"}, 200),
    ("publish", {"channel": "chat", "command": "x"}, 403),
    ("broadcast", {"channels": ["news.de", "chat"], "command": "x"}, 403),
    ("channels", {}, 200),
    ("channels", {"pattern": "news.*"}, 200),
    ("channels", {"pattern": ">"}, 403),
    ("connections", {}, 403),
    ("connections", {"channel": "news.de"}, 200),
    ("connections", {"channel": "chat"}, 403),
    ("history", {"channel": "chat"}, 403),
    ("disconnect", {"user": "jack"}, 403),
    ("mute", {"user": "jack"}, 403),
    ("unmute", {"user": "jack"}, 403),
    ("mutes", {}, 403),
    ("users", {}, 403),
    ("info", {}, 403),
    ("connection", {"connection": "a"}, 403),
    ("search", {"text": "a"}, 403),
    ("rates", {}, 403),
    ("trace", {"trace": "a", "kind": "channel", "name": "news.a"}, 403),
    ("incidents", {}, 403),
)
"""Calls of the key editor, and how they end."""


class Admin:
    """Asks the admin side of a server."""

    def __init__(self, server: ServerProcess) -> None:
        server.wait_for_log("admin side on")
        found = re.search(r"admin side on 127\.0\.0\.1:(\d+)", server.log)
        assert found is not None
        self.port = int(found[1])
        self.server = server

    def ask(self, method: str, params: Any = None, *, secret: str = SECRET, **headers: str) -> tuple[int, Any]:
        told = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        body = json.dumps({} if params is None else params)
        status, got, answer = http_request(self.port, "POST", f"/api/{method}", body, told)
        assert got["content-type"] == ("application/json" if status == 200 else "application/problem+json")
        found = json.loads(answer)
        assert status == 200 or found["status"] == status
        return status, found

    def call(self, method: str, **params: Any) -> Any:
        status, found = self.ask(method, params)
        assert status == 200, found
        return found

    def run(self, *arguments: str, secret: str = SECRET) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"LHTTP_ADMIN_KEY": secret, "LHTTP_ADMIN_URL": f"http://127.0.0.1:{self.port}"}
        command = [script("lhttp"), "admin", "--timeout", str(TIME_LIMIT), *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=3 * TIME_LIMIT, check=False
        )


@pytest.fixture
def start(serve: Callable[..., ServerProcess], tmp_path: Path) -> Callable[..., Admin]:
    (tmp_path / "lhttp.toml").write_text(CONFIG, "utf-8")
    for name, secret in (("key", SECRET), ("editor", EDITOR)):
        (tmp_path / name).write_text(secret, "utf-8")
        (tmp_path / name).chmod(0o600)
    return lambda *arguments: Admin(serve("--config", "lhttp.toml", *arguments))


def subscribe(client: Any, channel: str) -> None:
    client.send(message("x", {"subscribe": channel, "receipt": "s"}))
    assert recv_bytes(client)[0] == message("receipt", {"receipt-id": "s"}).encode()


def test_messages_are_published_once(start: Callable[..., Admin]) -> None:
    admin = start("--history", "news.>")
    with open_client(admin.server.port) as client:
        client.send(message("x", {"subscribe": "news.a", "receipt": "s"}))
        recv_bytes(client)
        told = admin.call("publish", channel="news.a", command="chat", headers={"by": "me"}, body="hello")
        assert re.fullmatch(r"\w+-1", told["positions"]["news.a"])
        got, _ = recv_bytes(client)
        assert got.endswith(b"publish:news.a\r\nby:me\r\n\r\nhello")
        for _ in range(2):
            status, again = admin.ask("publish", {"channel": "news.a", "command": "x"}, Idempotency_Key="one")
            assert status == 200
        status, other = admin.ask("publish", {"channel": "news.b", "command": "x"}, Idempotency_Key="one")
        assert (status, "another call" in other["detail"]) == (409, True)
        told = admin.call("publish", channel="news.a", command="x", message_id="one")
        assert told["duplicate"] is True
        assert told["positions"] == again["positions"]
        told = admin.call("broadcast", channels=["news.a", "news.b"], command="last", body_base64="AAE=")
        assert told["channels"] == ["news.a", "news.b"]
        found = admin.call("history", channel="news.a")
        assert [each["command"] for each in found["messages"]] == ["chat", "x", "last"]
        assert found["messages"][0]["body"] == "hello"
        page = admin.call("history", channel="news.a", since=found["messages"][0]["position"], limit=1)
        assert ([each["command"] for each in page["messages"]], page["more"]) == (["x"], True)
        assert admin.call("history", channel="news.a", since="other-1")["missed"] is True
        assert admin.call("history_remove", channel="news.a") == {}
        assert admin.call("history", channel="news.a")["messages"] == []
    assert admin.ask("history", {"channel": "other"})[0] == 404
    status, found = admin.ask("publish", {"channel": "a", "command": "x", "body": "x" * 70_000})
    assert status == 413
    assert admin.ask("publish", {"channel": "a", "command": "x", "headers": {"Receipt": "1"}})[0] == 400


def test_connections_are_listed_moved_and_closed(start: Callable[..., Admin]) -> None:
    admin = start()
    port = admin.server.port
    with open_client(port, "/?name=jack") as jack, open_client(port, "/?name=jill") as jill:
        subscribe(jack, "room.a")
        subscribe(jill, "room.a")
        assert admin.call("users") == {
            "users": [{"user": "jack", "connections": 1}, {"user": "jill", "connections": 1}],
            "unanswered": [],
        }
        first = admin.call("users", limit=1)
        assert (first["users"][0]["user"], first["next"]) == ("jack", "jack")
        assert admin.call("users", cursor="jack")["users"] == [{"user": "jill", "connections": 1}]
        (row,) = admin.call("connections", user="jack")["connections"]
        assert (row["user"], row["channels"], row["subscriptions"]) == ("jack", ["room.a"], 1)
        assert admin.call("connections", connection=row["connection"])["connections"] == [row]
        assert len(admin.call("connections", channel="room.a")["connections"]) == 2
        found = admin.call("connection", connection=row["connection"])
        assert found.items() >= row.items()
        assert (found["transport"], found["codec"], found["state"]) == ("websocket", "lhttp", "idle")
        assert admin.ask("connection", {"connection": "other"})[0] == 404
        found = admin.call("search", text="J")["found"]
        assert [(each["kind"], each["name"], each["count"]) for each in found] == [
            ("user", "jack", 1),
            ("user", "jill", 1),
        ]
        assert admin.call("search", text="j", limit=1)["more"] is True
        pages = admin.call("connections", limit=1)
        rest = admin.call("connections", limit=1, cursor=pages["next"])
        assert "next" not in rest
        assert {each["connections"][0]["user"] for each in (pages, rest)} == {"jack", "jill"}
        assert admin.call("presence", channel="room.a", limit=1)["next"] == "1"
        assert admin.call("presence_stats", channel="room.a") == {"people": 2, "connections": 2}
        assert admin.ask("presence", {"channel": "other"})[0] == 404
        assert admin.ask("presence", {"channel": "room.a", "cursor": "+1"})[0] == 400
        assert admin.call("subscribe", user="jack", channels=["b", "c"])["count"] == 1
        told = admin.call("channels")["channels"]
        assert [(each["channel"], each["subscribers"]) for each in told] == [("b", 1), ("c", 1), ("room.a", 2)]
        assert admin.call("channels", pattern="room.*")["channels"] == [told[2]]
        assert admin.call("channels", limit=1)["next"] == "b"
        assert admin.call("unsubscribe", user="jack", channels=["b"])["count"] == 1
        assert admin.ask("refresh", {"user": "jack", "expires": 1})[0] == 409
        assert admin.call("disconnect", connection=row["connection"], code=4001, reason="go")["count"] == 1
        with pytest.raises(Exception, match="4001"):
            jack.recv(timeout=TIME_LIMIT)
        info = admin.call("info")
        assert (info["nodes"], info["bus_up"], info["history"]) == (1, True, "none")


def test_rates_and_incidents_tell_what_went_on(start: Callable[..., Admin]) -> None:
    admin = start("--metrics")
    with open_client(admin.server.port, "/?name=jack") as client:
        client.send("nonsense")
        recv_bytes(client)
        (found,) = admin.call("incidents", kind="error")["incidents"]
        assert (found["code"], found["user"], found["node"]) == (400, "jack", admin.call("info")["node"])
    wait_until(lambda: admin.call("incidents", kind="close")["incidents"], "a close")
    found = admin.call("incidents", limit=1)["incidents"][0]
    assert (found["kind"], found["code"]) == ("close", 1000)
    wait_until(lambda: any(each["errors"] for each in admin.call("rates")["samples"]), "a rate of errors")
    samples = admin.call("rates", limit=1)["samples"]
    assert len(samples) == 1
    assert {"received", "delivered_bytes", "lag", "time", "node"} <= samples[0].keys()
    assert admin.call("rates", since=int(samples[0]["time"]) + 1000)["samples"] == []
    assert len(admin.run("rates", "--limit", "1").stdout.splitlines()) == 2
    assert "\tclose\t1000\t" in admin.run("incidents").stdout


def test_a_trace_shows_what_the_key_may_see(start: Callable[..., Admin], tmp_path: Path) -> None:
    scopes = CONFIG.replace('"connections", "history"]', '"connections", "history", "trace"]')
    (tmp_path / "lhttp.toml").write_text(scopes, "utf-8")
    admin = start()

    def trace(secret: str = EDITOR, **params: Any) -> tuple[int, Any]:
        return admin.ask("trace", {"trace": "t", "kind": "channel", "name": "news.a"} | params, secret=secret)

    status, told = trace()
    assert (status, told["messages"], told["unanswered"]) == (200, [], [])
    assert trace(bodies=True)[0] == 403
    for kind, name in (("channel", "other"), ("channel", ">"), ("channel", "news.*"), ("user", "a"), ("command", "a")):
        assert trace(kind=kind, name=name)[0] == 403
    admin.call("publish", channel="news.a", command="chat", body="secret")
    status, told = trace(after=told["after"])
    assert [(row["direction"], row["command"], row.get("body")) for row in told["messages"]] == [
        ("publish", "chat", None)
    ]
    assert trace(after=told["after"])[1]["messages"] == []
    assert trace(stop=True)[0] == 200
    assert trace(SECRET, bodies=True)[0] == 200
    admin.call("publish", channel="news.a", command="chat", body="secret")
    assert trace(SECRET, bodies=True)[1]["messages"][0]["body"] == "secret"


def test_a_login_is_cut_short(start: Callable[..., Admin], tmp_path: Path) -> None:
    (tmp_path / "lhttp.toml").write_text(CONFIG.replace('login-parameter = "name"\n', ""), "utf-8")
    (tmp_path / "passwords").write_text("jack:sesame\n", "utf-8")
    (tmp_path / "passwords").chmod(0o600)
    admin = start("--auth", "file:passwords", "--login-timeout", "60")
    with open_client(admin.server.port) as client:
        client.send(message("login", {"user": "jack", "password": "sesame"}))
        recv_bytes(client)
        assert admin.call("refresh", user="jack", expires=253_402_300_799)["count"] == 1
        assert admin.call("refresh", user="jack", expires=1)["count"] == 1
        with pytest.raises(Exception, match="4401"):
            client.recv(timeout=TIME_LIMIT)


def test_a_batch_goes_in_order_and_past_mistakes(start: Callable[..., Admin]) -> None:
    admin = start("--history", "a")
    calls = [{"method": "publish", "params": {"channel": "a", "command": f"c{number}"}} for number in range(3)]
    calls[1:1] = [{"method": "publish", "params": {"channel": "a"}}, {"method": "nothing"}, {"method": "batch"}]
    answers = admin.call("batch", calls=calls)["answers"]
    assert [each["status"] for each in answers] == [200, 400, 404, 404, 200, 200]
    assert [each["command"] for each in admin.call("history", channel="a")["messages"]] == ["c0", "c1", "c2"]
    many = [{"method": "info"}] * 101
    assert admin.ask("batch", {"calls": many})[0] == 400


@pytest.mark.parametrize(("method", "params", "status"), SCOPES)
def test_a_scope_refuses_what_it_should(scoped: Admin, method: str, params: dict[str, Any], status: int) -> None:
    assert scoped.ask(method, params, secret=EDITOR)[0] == status


@pytest.fixture(scope="module")
def scoped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    directory = tmp_path_factory.mktemp("scoped")
    (directory / "lhttp.toml").write_text(CONFIG, "utf-8")
    for name, secret in (("key", SECRET), ("editor", EDITOR)):
        (directory / name).write_text(secret, "utf-8")
        (directory / name).chmod(0o600)
    server = ServerProcess("--config", "lhttp.toml", cwd=directory)
    yield Admin(server)
    server.check()


def test_a_list_shows_only_channels_in_the_scope(scoped: Admin) -> None:
    with open_client(scoped.server.port) as client:
        for channel in ("news.de", "secret"):
            subscribe(client, channel)
        _, found = scoped.ask("channels", secret=EDITOR)
        assert found["channels"] == [{"channel": "news.de", "subscribers": 1}]
        _, found = scoped.ask("connections", {"channel": "news.de"}, secret=EDITOR)
        assert found["connections"][0]["channels"] == ["news.de"]
        calls = [{"method": "users"}, {"method": "publish", "params": {"channel": "secret", "command": "x"}}]
        _, found = scoped.ask("batch", {"calls": calls}, secret=EDITOR)
        assert [each["status"] for each in found["answers"]] == [403, 403]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"limit": NaN}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"", "", 200),
    ],
)
def test_bodies_of_strangers_are_refused(scoped: Admin, body: bytes, kind: str, status: int) -> None:
    told = {"Authorization": f"Bearer {SECRET}"} | ({"Content-Type": kind} if kind else {})
    assert http_request(scoped.port, "POST", "/api/info", body, told)[0] == status


def test_the_description_needs_a_key_and_names_every_method(scoped: Admin) -> None:
    assert http_request(scoped.port, "GET", "/api/openapi.json")[0] == 401
    told = {"Authorization": f"Bearer {EDITOR}"}
    status, _, body = http_request(scoped.port, "GET", "/api/openapi.json", None, told)
    assert status == 200
    assert json.loads(body)["openapi"] == "3.1.0"
    assert http_request(scoped.port, "GET", "/api/info", None, told)[0] == 405
    assert http_request(scoped.port, "POST", "/api/info/x", None, told)[0] == 404


def test_a_key_tells_what_it_may(scoped: Admin) -> None:
    told = {"Authorization": f"Bearer {EDITOR}"}
    status, _, body = http_request(scoped.port, "GET", "/api/key", None, told)
    found = json.loads(body)
    assert (status, found["name"], found["channels"]) == (200, "editor", ["news.>"])
    assert found["methods"] == sorted(("publish", "broadcast", "batch", "channels", "connections", "history"))
    assert http_request(scoped.port, "GET", "/api/key")[0] == 401
    found = json.loads(http_request(scoped.port, "GET", "/api/key", None, {"Authorization": f"Bearer {SECRET}"})[2])
    assert {"metrics", "users"} <= set(found["methods"])


def test_the_command_does_the_same(start: Callable[..., Admin]) -> None:
    admin = start("--history", "news.>")
    with open_client(admin.server.port, "/?name=jack") as jack:
        subscribe(jack, "room.a")
        done = admin.run("publish", "news.a", "chat", "--body", "hello\n", "--header", "by:me", "--json")
        assert done.returncode == 0, done.stderr
        assert "positions" in json.loads(done.stdout)
        done = admin.run("history", "news.a")
        assert done.stdout.splitlines()[1].split("\t")[1:] == ["chat", "hello\\n"]
        assert admin.run("users").stdout == "user\tconnections\njack\t1\n"
        assert admin.run("channels").stdout == "channel\tsubscribers\nroom.a\t1\n"
        assert admin.run("presence", "room.a").stdout.splitlines()[1].startswith("jack\t")
        assert "\tjack\t" in admin.run("connections", "--user", "jack").stdout
        assert admin.run("info").stdout.startswith("node\t")
        assert len(admin.run("nodes").stdout.splitlines()) == 2
        assert admin.run("search", "JAC").stdout.splitlines()[1:] == ["user\tjack\t1\t-"]
        assert admin.run("kick", "--user", "jack", "--code", "4001").stdout == "count\t1\n"
        with pytest.raises(Exception, match="4001"):
            jack.recv(timeout=TIME_LIMIT)
    done = admin.run("kick")
    assert (done.returncode, "name either a user or a connection" in done.stderr) == (1, True)
    done = admin.run("info", secret="a-wrong-secret-0123456789")
    assert (done.returncode, "not valid" in done.stderr) == (1, True)
    assert admin.run("--url", "http://127.0.0.1:1", "info").returncode == 3
    for params, why in (("[]", "a JSON object"), ("{", "not JSON")):
        done = admin.run("call", "info", params)
        assert (done.returncode, why in done.stderr) == (2, True)
    assert admin.run("info", secret=" ").returncode == 2


@pytest.fixture
def nats() -> Iterator[NATSProcess]:
    process = NATSProcess()
    yield process
    process.stop()


@needs_nats
def test_a_cluster_is_asked_as_one(start: Callable[..., Admin], nats: NATSProcess) -> None:
    one, two, three = (start("--nats", nats.url) for _ in range(3))
    for admin in (one, two, three):
        wait_until(lambda admin=admin: admin.call("info")["nodes"] == 3, "three nodes")  # type: ignore[misc]
    with open_client(one.server.port, "/?name=jack") as here, open_client(two.server.port, "/?name=jack") as there:
        subscribe(here, "room.a")
        subscribe(there, "room.a")
        assert three.call("channels")["channels"] == [{"channel": "room.a", "subscribers": 2}]
        assert three.call("users")["users"] == [{"user": "jack", "connections": 2}]
        assert three.call("search", text="jack")["found"] == [{"kind": "user", "name": "jack", "count": 2}]
        wait_until(lambda: len({each["node"] for each in three.call("rates")["samples"]}) == 3, "rates of all")
        trace = {"trace": "t", "kind": "user", "name": "jack", "bodies": True}
        assert len(three.call("trace", **trace)["after"]) == 3
        here.send(message("chat", {"publish": "room.a"}, "traced"))
        wait_until(lambda: len(three.call("trace", **trace)["messages"]) == 3, "one in and two deliveries")
        found = three.call("trace", **trace)
        assert {row["node"] for row in found["messages"]} < set(found["after"])
        for client in (here, there):
            assert recv_bytes(client)[0].endswith(b"traced")
        for row in three.call("connections")["connections"]:
            assert three.call("connection", connection=row["connection"])["node"] == row["node"]
        rows = three.call("connections", limit=1)
        more = three.call("connections", limit=1, cursor=rows["next"])
        assert len({rows["connections"][0]["node"], more["connections"][0]["node"]}) == 2
        wait_until(lambda: three.call("presence_stats", channel="room.a")["connections"] == 2, "presence everywhere")
        three.call("publish", channel="room.a", command="chat", body="to all")
        for client in (here, there):
            assert recv_bytes(client)[0].endswith(b"to all")
        assert three.call("subscribe", user="jack", channels=["b"])["count"] == 2
        os.kill(two.server.pid, signal.SIGSTOP)
        try:
            told = three.call("users")
            assert (told["users"], len(told["unanswered"])) == ([{"user": "jack", "connections": 1}], 1)
            done = three.run("users")
            assert (done.returncode, "did not answer" in done.stderr) == (1, True)
        finally:
            os.kill(two.server.pid, signal.SIGCONT)
        wait_until(lambda: three.call("info")["nodes"] == 3 and not three.call("info")["unanswered"], "all are back")
        assert three.call("disconnect", user="jack", code=4001)["count"] == 2
        for client in (here, there):
            with pytest.raises(Exception, match="4001"):
                client.recv(timeout=TIME_LIMIT)


@pytest.mark.slow
def test_schemathesis_finds_nothing(start: Callable[..., Admin], tmp_path: Path) -> None:
    if not Path(script("schemathesis")).exists():
        pytest.skip("schemathesis is missing: tox -e api installs it")
    admin = start("--history", "0", "--presence", "0")
    told = {"Authorization": f"Bearer {SECRET}"}
    (tmp_path / "openapi.json").write_bytes(http_request(admin.port, "GET", "/api/openapi.json", None, told)[2])
    command = [script("schemathesis"), "run", "openapi.json", "--url", f"http://127.0.0.1:{admin.port}", "--no-color"]
    command += ["--header", f"Authorization: Bearer {SECRET}", "--max-examples", "30"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "21/21" in done.stdout
