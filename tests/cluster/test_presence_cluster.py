"""Presence, logins and control among three real nodes with a real nats-server, also when one of them is killed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from integration._nats import NATSProcess, needs_nats
from integration._server import RawClient, ServerProcess, message, wait_until

from cluster._cluster import join

pytestmark = needs_nats

DEAD_WITHIN = 15.0
"""Seconds after which nobody may be seen any more who was on a node that was killed."""

CONTROL = """
import json

from lhttp_tx import Hooks, Message, Processor, processor

TOLD = []


class Doors(Hooks):
    def on_channel_opened(self, channel, scope):
        TOLD.append(f"{scope} +{channel}")

    def on_channel_closed(self, channel, scope):
        TOLD.append(f"{scope} -{channel}")


@processor("doors")
def doors(request):
    request.reply(" ".join(told for told in TOLD if told.endswith("door")), headers=[])


class Order(Processor):
    \"\"\"Does what the body says, through the control of the server.\"\"\"

    command = "order"

    async def on_message(self, request):
        from lhttp_tx import running

        order = json.loads(request.body)
        control = running.control()
        if order.pop("do") == "send":
            found = await control.send_to_user(order["user"], Message("news", body="hello"))
        else:
            found = await control.close(**order)
        request.reply(json.dumps([found.count, len(found.unanswered)]), headers=[])
"""


@pytest.fixture(scope="module")
def nodes(nats: NATSProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    """Three nodes that know of each other; the last test kills one."""
    tmp_path = tmp_path_factory.mktemp("nodes")
    (tmp_path / "own.py").write_text(CONTROL)
    arguments = ["--nats", nats.url, "--presence", "room", "--single-login", "--login-parameter", "name"]
    arguments += ["--presence-grace", "0.5", "--processor", f"{tmp_path}/own.py:Order"]
    arguments += ["--processor", f"{tmp_path}/own.py:doors", "--hooks", f"{tmp_path}/own.py:Doors"]
    processes = [ServerProcess(*arguments, cwd=tmp_path) for _ in range(3)]
    for process in processes:
        join(process)
    for process in processes:
        process.wait_for_log("has joined", 2)
    yield processes
    for process in processes:
        process.check()


@pytest.fixture
def connect() -> Iterator[Callable[..., RawClient]]:
    clients: list[RawClient] = []

    def connect(node: ServerProcess, name: str, *channels: str) -> RawClient:
        client = RawClient(node.port, f"/?name={name}")
        clients.append(client)
        for channel in channels:
            client.subscribe(channel)
        return client

    yield connect
    for client in clients:
        client.close()


Connect = Callable[..., RawClient]


def ask(client: RawClient) -> Any:
    """Return who is in the room, as the node of *client* knows it."""
    client.send(message("presence", {"channel": "room"}))
    while True:
        head, _, body = client.receive()[1].decode().partition("\r\n\r\n")
        if "event:" not in head:
            return json.loads(body)


def names(client: RawClient) -> list[str]:
    return sorted(person["user"] for person in ask(client)["people"])


def event(client: RawClient) -> tuple[str, str, int]:
    body = json.loads(client.receive()[1].partition(b"\r\n\r\n")[2])
    return body["event"], body["user"], body["count"]


def test_everybody_is_seen_on_every_node_and_comes_and_goes_once(nodes: list[ServerProcess], connect: Connect) -> None:
    listeners = [connect(node, f"listener{number}", "$presence.room") for number, node in enumerate(nodes)]
    jack = connect(nodes[0], "jack", "room")
    assert [event(listener) for listener in listeners] == [("join", "jack", 1)] * 3
    mike = connect(nodes[1], "mike", "room")
    assert [event(listener) for listener in listeners] == [("join", "mike", 2)] * 3
    assert [names(listener) for listener in listeners] == [["jack", "mike"]] * 3
    jack.close()
    assert [event(listener) for listener in listeners] == [("leave", "jack", 1)] * 3
    mike.send(message("x", {"unsubscribe": "room"}))
    assert [event(listener) for listener in listeners] == [("leave", "mike", 0)] * 3


def test_a_second_login_closes_the_first_on_another_node(nodes: list[ServerProcess], connect: Connect) -> None:
    first = connect(nodes[0], "jack", "room")
    watcher = connect(nodes[2], "watcher")
    wait_until(lambda: names(watcher) == ["jack"], "jack is seen")
    second = connect(nodes[1], "jack", "room")
    assert first.receive_close() == (4409, "logged in elsewhere")
    first.close()
    time.sleep(1.0)  # its end, and the grace, take nothing from the second
    assert names(watcher) == ["jack"]
    assert names(second) == ["jack"]


def test_orders_reach_every_node(nodes: list[ServerProcess], connect: Connect) -> None:
    operator = connect(nodes[0], "operator")
    jack = connect(nodes[2], "jack")

    def order(**what: object) -> str:
        operator.send(message("order", {}, json.dumps(what)))
        return operator.receive()[1].decode().partition("\r\n\r\n")[2]

    assert order(do="send", user="jack") == "[1, 0]"
    assert jack.receive()[1] == b"LHTTP/1.0 news\r\n\r\nhello"
    assert order(do="close", user="jack", code=4001, reason="out") == "[1, 0]"
    assert jack.receive_close() == (4001, "out")
    assert order(do="send", user="jack") == "[0, 0]"


def test_channels_open_and_close_once_in_the_cluster(nodes: list[ServerProcess], connect: Connect) -> None:
    askers = [connect(node, f"asker{number}") for number, node in enumerate(nodes)]

    def told() -> list[str]:
        found = []
        for asker in askers:
            asker.send(message("doors"))
            found.append(asker.receive()[1].decode().partition("\r\n\r\n")[2])
        return found

    first = connect(nodes[0], "first", "door")
    wait_until(lambda: told() == ["node +door cluster +door", "cluster +door", "cluster +door"], "it is open")
    second = connect(nodes[1], "second", "door")
    time.sleep(4.0)  # until the others know
    first.close()
    wait_until(lambda: "node -door" in told()[0], "the first has left")
    second.close()
    wait_until(
        lambda: (
            told()
            == [
                "node +door cluster +door node -door cluster -door",
                "cluster +door node +door node -door cluster -door",
                "cluster +door cluster -door",
            ]
        ),
        "it is closed",
    )


def test_a_node_that_comes_later_knows_everybody(
    nodes: list[ServerProcess], nats: NATSProcess, connect: Connect, tmp_path: Path
) -> None:
    connect(nodes[0], "jack", "room")
    late = join(ServerProcess("--nats", nats.url, "--presence", "room", cwd=tmp_path))
    try:
        client = connect(late, "late")
        wait_until(lambda: names(client) == ["jack"], "the new node knows jack")
        client.close()
    finally:
        late.check()


def test_users_of_a_killed_node_are_gone_in_time_and_log_in_elsewhere_at_once(
    nodes: list[ServerProcess], connect: Connect
) -> None:
    for name in ("jack", "mike"):
        connect(nodes[0], name, "room")
    alive = [connect(node, f"alive{number}", "room") for number, node in enumerate(nodes[1:])]
    wait_until(lambda: all(len(names(client)) == 4 for client in alive), "all are seen")
    nodes[0].crash()
    killed = time.monotonic()
    again = connect(nodes[1], "jack", "room")
    again.send(message("x", {"receipt": "in"}))
    assert again.receive()[1] == message("receipt", {"receipt-id": "in"}).encode()
    assert time.monotonic() - killed < 5.0, "it waited until the node was taken for dead"
    wait_until(
        lambda: all(names(client) == ["alive0", "alive1", "jack"] for client in alive), "mike is gone", DEAD_WITHIN
    )
    assert [ask(client)["connections"] for client in (*alive, again)] == [3, 3, 3]
