"""Clients without WebSocket in a cluster: each request may go to another node, over a real nats-server."""

from __future__ import annotations

import json
from collections.abc import Callable

from integration._http_client import HTTPClient
from integration._nats import NATSProcess, needs_nats
from integration._server import ServerProcess, http_request, message, wait_until

pytestmark = needs_nats


def pair(serve: Callable[..., ServerProcess], nats: NATSProcess, *arguments: str) -> list[ServerProcess]:
    """Return two nodes that hear each other."""
    nodes = [serve("--nats", nats.url, *arguments) for _ in range(2)]
    for server in nodes:
        server.wait_for_log("has joined")
        wait_until(lambda found=server: http_request(found.port, "GET", "/ready")[0] == 200, "it is ready")  # type: ignore[misc]
    return nodes


def publish(port: int, channel: str, body: str) -> None:
    status, _, answer = http_request(port, "POST", "/publish", message("chat", {"publish": channel}, body))
    assert status == 200, answer


def bodies(messages: list[str]) -> list[str]:
    return [found.partition("\r\n\r\n")[2] for found in messages]


def test_a_client_is_served_by_all_nodes_in_turn(serve: Callable[..., ServerProcess], nats: NATSProcess) -> None:
    one, two = pair(serve, nats)
    client = HTTPClient(one.port, two.port)
    client.subscribe("room")
    for number in range(10):
        assert client.send(message("chat", {"publish": "room"}, f"own {number}")) == 204
    assert bodies(client.wait_for(10)) == [f"own {number}" for number in range(10)]
    client.got.clear()
    for number in range(10):
        publish((one, two)[number % 2].port, "room", f"{number}")
    assert sorted(bodies(client.wait_for(10))) == [str(number) for number in range(10)]
    assert (client.end(), client.end()) == (204, 404)


def test_one_node_sends_and_streams_for_a_session_of_the_other(
    serve: Callable[..., ServerProcess], nats: NATSProcess
) -> None:
    one, two = pair(serve, nats)
    client = HTTPClient(one.port, query="?protocol=lhttp.json")
    client.ports = [two.port]
    assert client.send(message("chat", {"subscribe": "room", "receipt": "s"})) == 204
    stream = client.stream()
    stream.wait_for(1)
    for number in range(20):
        publish(one.port, "room", str(number))
    assert [event.body for event in stream.wait_for(21)[1:]] == [str(number) for number in range(20)]
    stream.close()
    publish(one.port, "room", "20")
    again = client.stream(int(stream.parser.events[-3].last_id))
    assert [event.body for event in again.wait_for(3)] == ["18", "19", "20"]
    one.stop()
    assert json.loads(again.read_to_the_end()[-1].data)["HEADERS"]["code"] == "1001"


def test_a_large_message_comes_from_another_node(serve: Callable[..., ServerProcess], nats: NATSProcess) -> None:
    one, two = pair(serve, nats, "--max-message-size", "400000")
    client = HTTPClient(one.port)
    client.ports = [two.port]
    client.subscribe("room")
    large = "ä" * 150_000
    assert client.send(message("chat", {"publish": "room"}, large)) == 204
    assert bodies(client.wait_for(1)) == [large]


def test_a_session_is_lost_with_its_node(serve: Callable[..., ServerProcess], nats: NATSProcess) -> None:
    one, two = pair(serve, nats)
    client = HTTPClient(one.port)
    client.ports = [two.port]
    client.subscribe("room")
    one.crash()
    wait_until(lambda: client.poll(wait=0) == 404, "the other node knows that it is gone", 60)
    client = HTTPClient(two.port)
    client.subscribe("room")


def test_workers_serve_each_others_clients(serve: Callable[..., ServerProcess], nats: NATSProcess) -> None:
    server = serve("--workers", "2", "--nats", nats.url, endpoints=2)
    server.wait_for_log("has joined", count=2)
    server.wait_for_log("connected to NATS", count=2)
    clients = [HTTPClient(server.port) for _ in range(4)]
    assert len({client.secret.partition(".")[0] for client in clients}) <= 2
    for client in clients:
        client.subscribe("room")
    for number in range(10):
        assert clients[0].send(message("chat", {"publish": "room"}, str(number))) == 204
    for client in clients:
        assert bodies(client.wait_for(10)) == [str(number) for number in range(10)]
