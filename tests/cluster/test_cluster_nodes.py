"""Nodes that share their channels: everything arrives once and in order, names do no harm, other programs join in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import nats as nats_py
import pytest
from integration._nats import NATSProcess, needs_nats
from integration._server import BINARY, TEXT, RawClient, ServerProcess, client_frame, http_request, message

from cluster._cluster import join

pytestmark = needs_nats

POISON = [
    "x" * 4_200,
    "a\x0bb",
    "a\x0cb",
    "*",
    ">",
    "a.*",
    "a.>",
    "$JS.API.x",
    "$SYS.x",
    "_INBOX.x",
    "a..b",
    ".a",
    "a.",
    "a\r\nPUB b 0\r\n",
    "a\nb",
    "a\0b",
    "\x7f",
    "a\u0085b",
    "a\u2028b",
]
ODD = ["🙂", "é.日本", "a*", ">b", "a%b", "%2A", "a:b", "a$b", "a,b;c", "x" * 255]
"""Names that are allowed, and of which NATS would not take all as they stand."""


@pytest.fixture(scope="module")
def nodes(nats: NATSProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    """Three nodes; that nothing has disturbed their way to NATS is checked at the end."""
    directory = tmp_path_factory.mktemp("nodes")
    processes = [ServerProcess("--nats", nats.url, cwd=directory) for _ in range(3)]
    for process in processes:
        join(process)
    yield processes
    for process in processes:
        process.check()
        assert process.log.count("connected to NATS") == 1 and "lost NATS" not in process.log
    assert "[ERR]" not in nats.log


def post(node: ServerProcess, channel: str, body: str) -> tuple[int, bytes]:
    status, _, answer = http_request(node.port, "POST", "/publish", message("news", {"publish": channel}, body))
    return status, answer


def bodies(client: RawClient, count: int) -> list[str]:
    return [client.receive()[1].decode().partition("\r\n\r\n")[2] for _ in range(count)]


def test_every_publication_reaches_every_subscriber_of_every_node_once_and_in_order(nodes: list[ServerProcess]) -> None:
    count = 300
    subscribers = [RawClient(node.port) for node in nodes for _ in range(3)]
    publishers = [RawClient(node.port) for node in nodes]
    for client in (*subscribers, publishers[0]):  # one that publishes gets its own as well
        client.subscribe("all")
    for number in range(count):
        for name, publisher in enumerate(publishers):
            publisher.send(message("chat", {"publish": "all"}, f"{name} {number}"))
    for name, node in enumerate(nodes):
        assert post(node, "all", f"{name} posted")[0] == 200
    for client in (*subscribers, publishers[0]):
        received = bodies(client, len(nodes) * (count + 1))
        for name in range(len(nodes)):
            mine = [body for body in received if body.startswith(f"{name} ") and body != f"{name} posted"]
            assert mine == [f"{name} {number}" for number in range(count)]
            assert received.count(f"{name} posted") == 1
        client.send(message("chat", {"publish": "all", "receipt": "end"}, "end"))
        assert b"end" in client.receive()[1]  # nothing else was under way
    for client in (*subscribers, *publishers):
        client.close()


def test_a_publication_is_the_same_on_every_node(nodes: list[ServerProcess]) -> None:
    with RawClient(nodes[0].port) as here, RawClient(nodes[1].port) as there, RawClient(nodes[2].port) as publisher:
        here.subscribe("bytes")
        there.subscribe("bytes")
        text = "LHTTP/1.0 chat\r\nPublish: bytes\r\nx-odd:  é \r\n\r\nbody\r\n\r\n🙂".encode()
        binary = b"LHTTP/1.0 chat\r\npublish:bytes\r\n\r\n\xff\x00\xfe"
        publisher.send(text)
        publisher.send(binary, BINARY)
        publisher.send(b"LHTTP/1.0 chat\r\npublish:bytes\r\n\r\ntext", BINARY)
        for client in (here, there):
            assert client.receive() == (TEXT, text)
            assert client.receive() == (BINARY, binary)
            assert client.receive() == (BINARY, b"LHTTP/1.0 chat\r\npublish:bytes\r\n\r\ntext")


def test_ten_thousand_publications_at_once_all_reach_another_node(nodes: list[ServerProcess]) -> None:
    count = 10_000
    with RawClient(nodes[0].port) as publisher, RawClient(nodes[1].port) as subscriber:
        subscriber.subscribe("burst")
        data = b"".join(
            client_frame(message("chat", {"publish": "burst"}, f"{number:032}").encode()) for number in range(count)
        )
        sender = threading.Thread(target=publisher.sock.sendall, args=(data,))
        sender.start()
        assert bodies(subscriber, count) == [f"{number:032}" for number in range(count)]
        sender.join()


def test_a_receipt_for_a_subscription_says_that_other_nodes_reach_it(nodes: list[ServerProcess]) -> None:
    with RawClient(nodes[0].port) as subscriber, RawClient(nodes[1].port) as publisher:
        for number in range(100):
            subscriber.subscribe(f"receipt{number}")
            publisher.send(message("chat", {"publish": f"receipt{number}"}, str(number)))
            assert bodies(subscriber, 1) == [str(number)]


def test_several_who_subscribe_at_the_same_moment_all_get_a_receipt(nodes: list[ServerProcess]) -> None:
    clients = [RawClient(nodes[0].port) for _ in range(20)]
    for client in clients:
        client.send(message("chat", {"subscribe": "crowd", "receipt": "s"}))
    for client in clients:
        assert client.receive()[1] == message("receipt", {"receipt-id": "s"}).encode()
        client.close()


def test_a_client_that_leaves_a_channel_gets_nothing_more_and_may_come_back(nodes: list[ServerProcess]) -> None:
    with (
        RawClient(nodes[0].port) as client,
        RawClient(nodes[0].port) as witness,
        RawClient(nodes[1].port) as publisher,
    ):
        client.subscribe("door")
        witness.subscribe("door")
        for body in ("stays", "has left", "is back"):
            if body == "has left":
                client.send(message("chat", {"unsubscribe": "door", "receipt": "u"}))
                client.receive()
            elif body == "is back":
                client.subscribe("door")
            publisher.send(message("chat", {"publish": "door"}, body))
            assert bodies(witness, 1) == [body]
            if body != "has left":
                assert bodies(client, 1) == [body]


def test_the_last_client_of_a_channel_may_leave_and_come_back(nodes: list[ServerProcess]) -> None:
    with RawClient(nodes[0].port) as client, RawClient(nodes[1].port) as publisher:
        for number in range(20):
            client.subscribe("thrash")
            publisher.send(message("chat", {"publish": "thrash"}, str(number)))
            assert bodies(client, 1) == [str(number)]
            client.send(message("chat", {"unsubscribe": "thrash", "receipt": "u"}))
            client.receive()


@pytest.mark.parametrize("header", ["publish", "subscribe"])
@pytest.mark.parametrize("name", POISON, ids=[ascii(name)[:14] for name in POISON])
def test_no_name_that_a_client_can_write_disturbs_nats(nodes: list[ServerProcess], name: str, header: str) -> None:
    with RawClient(nodes[0].port) as client, RawClient(nodes[1].port) as other:
        for neighbour in ("a", "b", "x", "a.b"):
            other.subscribe(neighbour)
        client.send(message("chat", {header: name, "receipt": "p"}, "poison"))
        answer = client.receive()[1]
        assert answer.startswith(b"LHTTP/1.0 error\r\nstatus:4"), answer
        client.subscribe("fine")
        other.send(message("chat", {"publish": "fine a"}, "antidote"))
        assert bodies(client, 1) == bodies(other, 1) == ["antidote"]
        assert post(nodes[0], name, "poison")[0] in (400, 403)


def test_poison_in_bodies_and_headers_passes_unchanged(nodes: list[ServerProcess]) -> None:
    with RawClient(nodes[0].port) as publisher, RawClient(nodes[1].port) as subscriber:
        subscriber.subscribe("payload")
        for body in ("\r\nPUB a 0\r\n\r\n", "-ERR 'x'\r\n", "\0", "\r\n\r\n", ""):
            sent = message("chat", {"publish": "payload", "Lhttp-Frame": "binary", "Status": "503"}, body)
            publisher.send(sent)
            assert subscriber.receive() == (TEXT, sent.encode())


def test_odd_names_reach_their_own_subscribers_alone(nodes: list[ServerProcess]) -> None:
    with RawClient(nodes[0].port) as publisher:
        subscribers = {name: RawClient(nodes[1].port) for name in ODD}
        for name, subscriber in subscribers.items():
            subscriber.subscribe(name)
        for _ in range(2):
            for name in ODD:
                publisher.send(message("chat", {"publish": name}, name))
        for name, subscriber in subscribers.items():
            assert bodies(subscriber, 2) == [name, name]
            subscriber.close()


def test_a_publication_that_nats_does_not_take_is_refused(
    nats: NATSProcess, nodes: list[ServerProcess], tmp_path: Path
) -> None:
    large = join(ServerProcess("--nats", nats.url, "--max-message-size", "3000000", cwd=tmp_path))
    try:
        with RawClient(large.port) as publisher, RawClient(nodes[1].port) as subscriber:
            subscriber.subscribe("large")
            for size, opcode, taken in [
                (1_048_576, TEXT, True),
                (1_048_577, TEXT, False),
                (1_048_576, BINARY, False),
                (1_048_500, BINARY, True),
                (2_000_000, BINARY, False),
            ]:
                head = message("chat", {"publish": "large", "receipt": "p"})
                on_the_bus = len(message("chat", {"publish": "large"}))
                publisher.send(head + "x" * (size - on_the_bus), opcode)
                answer = publisher.receive()[1]
                assert answer.startswith(b"LHTTP/1.0 receipt" if taken else b"LHTTP/1.0 error\r\nstatus:413\r\n")
                if taken:
                    assert len(subscriber.receive()[1]) == size
        assert "lost NATS" not in large.log
    finally:
        large.check()


def test_a_plain_nats_program_shares_channels_under_an_empty_prefix(nats: NATSProcess, tmp_path: Path) -> None:
    """As nodes of the original do: the subject is the bare channel, the payload the LHTTP message."""
    bare = join(ServerProcess("--nats", nats.url, "--nats-prefix", "", cwd=tmp_path))
    try:
        with RawClient(bare.port) as client:
            client.subscribe("room.7")
            asyncio.run(_exchange(nats.url, client))
    finally:
        bare.check()


async def _exchange(url: str, client: RawClient) -> None:
    program = await nats_py.connect(url)
    subscription = await program.subscribe("room.7")
    for opcode, body in [(TEXT, b"from a program"), (BINARY, b"\xff")]:
        payload = b"LHTTP/1.0 chat\r\npublish:room.7\r\n\r\n" + body
        await program.publish("room.7", payload)
        assert (await subscription.next_msg(10)).data == payload
        assert client.receive() == (opcode, payload)
    payload = b"LHTTP/1.0 chat\r\npublish:room.7\r\n\r\nfrom a client"
    client.send(payload)
    assert (await subscription.next_msg(10)).data == payload
    assert client.receive() == (TEXT, payload)
    await program.close()


def test_what_a_plain_nats_program_publishes_need_not_be_lhttp(nats: NATSProcess, nodes: list[ServerProcess]) -> None:
    async def publish() -> None:
        program = await nats_py.connect(nats.url)
        for payload in (b"", b"\xff\xfe", b"not lhttp", b"x" * 200_000):
            await program.publish("lhttp.wild", payload, headers={"Lhttp-Frame": "x"})
        await program.publish("lhttp.wild", b"end", reply="lhttp.wild2")
        await program.flush()
        await program.close()

    with RawClient(nodes[0].port) as client:
        client.subscribe("wild")
        asyncio.run(publish())
        received = [client.receive() for _ in range(5)]
    assert [(opcode, len(payload)) for opcode, payload in received] == [
        (TEXT, 0),
        (BINARY, 2),
        (TEXT, 9),
        (TEXT, 200_000),
        (TEXT, 3),
    ]


def test_only_subjects_below_the_prefix_are_used(nats: NATSProcess, nodes: list[ServerProcess]) -> None:
    async def watch() -> set[str]:
        program = await nats_py.connect(nats.url)
        seen: set[str] = set()

        async def see(found: object) -> None:
            seen.add(found.subject)  # type: ignore[attr-defined]

        await program.subscribe(">", cb=see)
        await program.flush()
        with RawClient(nodes[0].port) as client:
            for name in [*POISON, *ODD]:
                client.send(message("chat", {"publish": name, "receipt": "p"}, "x"))
                client.receive()
        with RawClient(nodes[1].port) as client:  # what was published before has passed NATS
            client.send(message("chat", {"publish": "last", "receipt": "p"}))
            client.receive()
        while "lhttp.last" not in seen:
            await asyncio.sleep(0.01)
        await program.close()
        return {subject for subject in seen if not subject.startswith("lhttp.$")}  # the nodes' own

    seen = {subject for subject in asyncio.run(watch()) if not subject.startswith("lhttp.%24node")}  # nodes talk there
    assert len(seen) == len(ODD) + 1
    assert all(subject.startswith("lhttp.") for subject in seen)
