"""Two real nodes at two nats-servers, whose route is cut, whose clocks differ, and one of which stands still."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from integration._nats import needs_nats
from integration._server import TIME_LIMIT, RawClient, ServerProcess, http_request, message, wait_until

from cluster._cluster import join
from cluster._faults import Proxy, two_servers

pytestmark = needs_nats

SKEW = """
import time

_time = time.time
time.time = lambda: _time() + 3600
"""

CONTROL = """
import json

from lhttp_tx import running, processor


@processor("order")
async def order(request):
    found = await getattr(running.control(), request.headers.get("do"))(**json.loads(request.body))
    count = getattr(found, "count", None)
    told = {"count": len(found) if count is None else count, "unanswered": len(found.unanswered)}
    request.reply(json.dumps({**told, "nodes": len(found.nodes), "complete": found.complete}), headers=[])
"""


class Pair:
    """The nodes, and the proxy between their nats-servers. The clock of the first is an hour ahead."""

    def __init__(self, tmp_path: Path) -> None:
        (tmp_path / "sitecustomize.py").write_text(SKEW)
        (tmp_path / "own.py").write_text(CONTROL)
        self.route: Proxy
        *servers, self.route = two_servers(0.0)
        self.servers = servers
        arguments = ["--presence", "room", "--single-login", "--login-parameter", "name", "--require-nodes", "2"]
        arguments += ["--presence-grace", "0.5", "--processor", f"{tmp_path}/own.py:order"]
        skewed = {"PYTHONPATH": str(tmp_path)}
        self.nodes = [
            ServerProcess("--nats", server.url, *arguments, cwd=tmp_path, environment=environment)
            for server, environment in zip(servers, (skewed, {}), strict=True)
        ]
        for node in self.nodes:
            join(node)
        for node in self.nodes:
            node.wait_for_log("has joined")

    def close(self) -> None:
        for node in self.nodes:
            node.check()
        self.route.close()
        for server in self.servers:
            server.stop()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair"))
    yield made
    made.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., RawClient]]:
    clients: list[RawClient] = []

    def connect(node: ServerProcess, name: str) -> RawClient:
        clients.append(RawClient(node.port, f"/?name={name}"))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


Connect = Callable[..., RawClient]


def health(node: ServerProcess) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(http_request(node.port, "GET", "/health")[2])
    return found


def ask(client: RawClient, do: str, **what: Any) -> dict[str, Any]:
    client.send(message("order", {"do": do}, json.dumps(what)))
    found: dict[str, Any] = json.loads(client.receive()[1].decode().partition("\r\n\r\n")[2])
    return found


def answer(client: RawClient, text: str) -> str:
    client.send(text)
    return client.receive()[1].decode()


def is_alive(client: RawClient) -> bool:
    try:
        return answer(client, message("x", {"receipt": "alive"})).startswith("LHTTP/1.0 receipt")
    except (OSError, ValueError, AssertionError):
        return False


PUBLISHED = message("x", {"publish": "room", "receipt": "1"})


def test_nodes_that_cannot_hear_each_other_say_so_and_the_newer_login_survives(pair: Pair, connect: Connect) -> None:
    first, second = pair.nodes
    asker = connect(first, "asker")
    assert health(first) == health(second) == {"status": "ok"}
    assert ask(asker, "channels") == {"count": 0, "unanswered": 0, "nodes": 2, "complete": True}
    assert "nodes:" not in answer(asker, PUBLISHED)
    pair.route.cut()
    for node in pair.nodes:
        node.wait_for_log("no longer sends heartbeats")
        found = health(node)
        assert (found["status"], len(found["missing"]), found["nodes"]) == ("degraded", 1, "1/2")
    assert ask(asker, "channels") == {"count": 0, "unanswered": 1, "nodes": 1, "complete": False}
    assert ask(asker, "close", user="nobody") == {"count": 0, "unanswered": 1, "nodes": 1, "complete": False}
    assert '"complete":false' in answer(asker, message("presence", {"channel": "room"}))
    assert answer(asker, PUBLISHED) == "LHTTP/1.0 receipt\r\nnodes:1/2\r\nreceipt-id:1\r\n\r\n"
    told = json.loads(http_request(first.port, "POST", "/publish", message("x", {"publish": "room"}))[2])
    assert told == {"channels": ["room"], "nodes": "1/2"}
    older = connect(first, "alice")
    assert is_alive(older)
    newer = connect(second, "alice")
    assert is_alive(newer)
    pair.route.heal()
    for node in pair.nodes:
        node.wait_for_log("can be heard again")
    assert older.receive_close()[0] == 4409
    wait_until(lambda: health(first) == health(second) == {"status": "ok"}, "they hear each other")
    assert is_alive(newer)
    assert "nodes:" not in answer(asker, PUBLISHED)


@pytest.mark.parametrize("seconds", [5.0, 15.0])
def test_who_asked_is_told_of_gaps_after_the_route_was_cut(pair: Pair, connect: Connect, seconds: float) -> None:
    clients = [connect(node, f"reader{number}") for number, node in enumerate(pair.nodes)]
    for client in clients:
        told = answer(client, message("x", {"subscribe": "news", "gaps": "tell", "receipt": "1"}))
        assert told.startswith("LHTTP/1.0 receipt")
    time.sleep(5.0)  # both have heard each other
    pair.route.cut()
    time.sleep(seconds)
    pair.route.heal()
    for client in clients:
        assert client.receive()[1] == b"LHTTP/1.0 missed\r\nchannel:news\r\n\r\n"
    wait_until(lambda: [health(node)["status"] for node in pair.nodes] == ["ok", "ok"], "they hear each other")


def test_an_order_that_comes_late_does_not_close_who_logged_in_meanwhile(pair: Pair, connect: Connect) -> None:
    first, second = pair.nodes
    asker = connect(first, "asker")
    assert is_alive(connect(second, "bob"))
    os.kill(second.pid, signal.SIGSTOP)
    later: list[RawClient] = []
    try:
        assert ask(asker, "close", user="bob", code=4000)["unanswered"] == 1
        thread = threading.Thread(target=lambda: later.append(connect(second, "bob")))
        thread.start()
        time.sleep(1.0)  # it stands in the queue of the listening socket, behind the order
    finally:
        os.kill(second.pid, signal.SIGCONT)
    thread.join(TIME_LIMIT)
    assert ask(asker, "channels_of", user="bob")["complete"]  # the order came before this question
    assert is_alive(later[0])
