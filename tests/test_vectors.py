"""The vectors that every client and server shares, against the codec and the engine."""

from collections.abc import Iterable
from typing import Any

import pytest
from integration._vectors import VECTORS as HERE, octets, read
from twisted.internet.task import Clock

from lhttp_tx.codec.json_view import decode_json
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.codec.multipart import join_parts, parse_offsets, split_parts
from lhttp_tx.errors import LHTTPError
from lhttp_tx.interfaces import IProcessor
from lhttp_tx.testing import Client, Server
from lhttp_tx.twistd.loading import load_object
from lhttp_tx.upstream.client import UpstreamClient
from lhttp_tx.upstream.filter import UpstreamFilter
from lhttp_tx.upstream.targets import Target, TargetPolicy

ALLOWED = "http://backend.example/record"
PROCESSORS = {"plain": ("echo", "upload"), "auth": ("auth",)}


def each(entries: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", entries, ids=[entry["name"].replace("[", "(") for entry in entries])


def octets_or_raw(entry: dict[str, Any], key: str) -> bytes:
    found = any(name in entry for name in (key, key + "_base64", key + "_repeat"))
    return octets(entry, key if found else "raw")


def make_server(processors: Iterable[str] = ("echo",), allowed: Iterable[str] = ()) -> Server:
    policy = TargetPolicy(allowed)
    return Server(
        processors=[load_object(f"{HERE / 'processors.py'}:{name}", IProcessor) for name in processors],
        filters=[UpstreamFilter(UpstreamClient(reactor=Clock(), policy=policy), policy)],
    )


def send(client: Client, raw: bytes, binary: bool) -> list[Message]:
    client.send(raw if binary else raw.decode("utf-8"))
    return client.take()


MESSAGES = read("messages")
MALFORMED = read("malformed")
PUBLISH = read("publish")
EXCHANGES = read("exchanges")


@pytest.mark.parametrize("entries", [MESSAGES, MALFORMED, PUBLISH, EXCHANGES])
def test_names_are_unique(entries: list[dict[str, Any]]) -> None:
    names = [entry["name"] for entry in entries]
    assert sorted(set(names)) == sorted(names)


def test_malformed_inputs_are_at_least_eighty() -> None:
    inputs = {(octets(entry, "raw"), entry["binary"]) for entry in MALFORMED}
    assert len(inputs) == len(MALFORMED) >= 80


# messages.json


@each(MESSAGES)
def test_message_parses(entry: dict[str, Any]) -> None:
    message = parse(octets(entry, "raw"), binary=entry["binary"])
    assert message.command == entry["command"]
    assert [list(pair) for pair in message.headers] == entry["headers"]
    assert message.body == octets(entry, "body")
    assert message.binary is entry["binary"]
    assert message.raw == octets(entry, "raw")


@each(MESSAGES)
def test_message_builds(entry: dict[str, Any]) -> None:
    pairs = [(name, value) for name, value in entry["headers"]]
    message = Message(entry["command"], pairs, octets(entry, "body"), binary=entry["binary"])
    assert message.raw == octets_or_raw(entry, "built")


@each(MESSAGES)
def test_message_is_stripped_for_subscribers(entry: dict[str, Any]) -> None:
    stripped = parse(octets(entry, "raw"), binary=entry["binary"]).stripped()
    assert stripped.raw == octets_or_raw(entry, "stripped")
    assert stripped == parse(stripped.raw, binary=entry["binary"])
    assert stripped.headers == parse(stripped.raw).headers


@each([entry for entry in MESSAGES if "channels" in entry])
def test_message_lists_channels(entry: dict[str, Any]) -> None:
    head = parse(octets(entry, "raw")).head
    for name in ("subscribe", "unsubscribe", "publish"):
        assert list(head.channels(name)) == entry["channels"].get(name, [])


@each([entry for entry in MESSAGES if "parts" in entry])
def test_message_has_parts(entry: dict[str, Any]) -> None:
    message = parse(octets(entry, "raw"), binary=entry["binary"])
    parts = split_parts(parse_offsets(message.headers.get("multipart", "")), message.body)
    expected = [([list(pair) for pair in part["headers"]], octets(part, "body")) for part in entry["parts"]]
    assert [([list(pair) for pair in part.headers], part.body) for part in parts] == expected
    offsets, body = join_parts(parts)
    assert offsets.split() == message.headers.get("multipart", "").split()
    assert body == message.body


# malformed.json


@each(MALFORMED)
def test_malformed_input_gets_one_error_and_does_nothing_else(entry: dict[str, Any]) -> None:
    server = make_server(allowed=[ALLOWED])
    client, bystander = server.connect(), server.connect()
    bystander.send(Message("chat", [("subscribe", "good")]))

    (error,) = send(client, octets(entry, "raw"), entry["binary"])

    assert error.command == "error"
    assert error.headers.get("status") == str(entry["status"])
    assert entry["reason"] in (error.headers.get("reason") or "")
    assert error.body == b""
    assert not error.binary
    assert bystander.take() == []
    assert client.session.channels == frozenset()
    assert client.close_code is None


@each(MALFORMED)
def test_next_message_after_malformed_input_works(entry: dict[str, Any]) -> None:
    client = make_server(allowed=[ALLOWED]).connect()
    for _ in range(2):
        send(client, octets(entry, "raw"), entry["binary"])
    good = Message("echo", [("h", "1")], "hello")
    client.send(good)
    assert client.take() == [good]


def test_the_target_that_malformed_inputs_miss_is_allowed() -> None:
    TargetPolicy([ALLOWED]).check(Target.parse(f"{ALLOWED}/x?y=z"))


# publish.json: what the resource does once it has read the body


def publish(server: Server, entry: dict[str, Any]) -> Message:
    raw = octets(entry, "raw")
    if entry["content_type"] == "application/json" and not raw.startswith(b"LHTTP/"):
        raw, _ = decode_json(raw)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        binary = True
    else:
        binary = entry["content_type"] == "application/octet-stream"
    message = parse(raw, binary=binary)
    assert server.engine.publish_message(message) is None
    return message


@each([entry for entry in PUBLISH if entry["status"] == 200])
def test_publish_body_is_delivered(entry: dict[str, Any]) -> None:
    server = make_server()
    subscribers = {channel: server.connect() for channel in entry["channels"]}
    for channel, client in subscribers.items():
        client.send(Message("chat", [("subscribe", channel)]))
    message = publish(server, entry)
    assert list(message.head.channels("publish")) == entry["channels"]
    expected = parse(octets(entry["delivered"], "raw"), binary=entry["delivered"]["binary"])
    assert {channel: client.take() for channel, client in subscribers.items()} == dict.fromkeys(subscribers, [expected])


@each([entry for entry in PUBLISH if entry["status"] != 200])
def test_publish_body_is_refused(entry: dict[str, Any]) -> None:
    server = make_server()
    subscriber = server.connect()
    subscriber.send(Message("chat", [("subscribe", "a")]))
    with pytest.raises(LHTTPError) as caught:
        publish(server, entry)
    assert caught.value.status == entry["status"]
    assert entry["reason"] in caught.value.reason
    assert subscriber.take() == []


# exchanges.json


@each(EXCHANGES)
def test_exchange(entry: dict[str, Any]) -> None:
    server = make_server(PROCESSORS[entry["server"]])
    names = {name for step in entry["steps"] for name in (step["client"], *step["receive"])}
    clients = {name: server.connect(name) for name in sorted(names)}
    for step in entry["steps"]:
        data = octets(step["send"], "raw")
        clients[step["client"]].send(data if step["send"]["binary"] else data.decode("utf-8"))
        received = {
            name: [(message.raw, message.binary) for message in messages]
            for name, client in clients.items()
            if (messages := client.take())
        }
        expected = {
            name: [(octets(message, "raw"), message["binary"]) for message in messages]
            for name, messages in step["receive"].items()
        }
        assert received == expected, step
