"""Clients of all codecs in one room, with a real server and Node."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from google_protobuf import MESSAGE
from websockets.sync.client import ClientConnection

from integration._server import TIME_LIMIT, ServerProcess, message, open_client, recv_bytes, send_bytes

BODIES = [
    b"",
    b"hello",
    '日本 😀 \u2028 \x00\x1f"\\'.encode(),
    b'{"to":["jack",{"a":1}]}',
    b"\r\n\r\nLHTTP/1.0 x\r\n\r\n",
    bytes(range(256)),
    b"\xed\xa0\x80\xff" * 1_000,
    b"x" * 60_000,
]


def of_text(data: bytes) -> tuple[str, str, bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    start, *lines = head.decode("utf-8").split("\r\n")
    return start.partition(" ")[2], dict(line.split(":", 1) for line in lines).get("receipt-id", ""), body


def of_json(data: bytes) -> tuple[str, str, bytes]:
    found = json.loads(data)
    body = base64.b64decode(found["BODY_BASE64"]) if "BODY_BASE64" in found else found["BODY"].encode("utf-8")
    return found["COMMAND"], found["HEADERS"].get("receipt-id", ""), body


def of_protobuf(data: bytes) -> tuple[str, str, bytes]:
    found = MESSAGE.FromString(data)
    headers = {pair.name: pair.value for pair in found.headers}
    return found.command, headers.get("receipt-id", ""), found.body


def to_text(command: str, headers: dict[str, str], body: bytes) -> tuple[bytes, bool]:
    raw = message(command, headers).encode("utf-8") + body
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return raw, True
    return raw, False


def to_json(command: str, headers: dict[str, str], body: bytes) -> tuple[bytes, bool]:
    found: dict[str, Any] = {"VERSION": "LHTTP/1.0", "COMMAND": command, "HEADERS": headers}
    try:
        found["BODY"] = body.decode("utf-8")
    except UnicodeDecodeError:
        found["BODY_BASE64"] = base64.b64encode(body).decode("ascii")
    return json.dumps(found, ensure_ascii=False).encode("utf-8"), False


def to_protobuf(command: str, headers: dict[str, str], body: bytes) -> tuple[bytes, bool]:
    found = MESSAGE(command=command, body=body)
    for name, value in headers.items():
        found.headers.add(name=name, value=value)
    return found.SerializeToString(), True


CODECS: dict[str, tuple[Callable[..., tuple[bytes, bool]], Callable[[bytes], tuple[str, str, bytes]]]] = {
    "lhttp": (to_text, of_text),
    "lhttp.json": (to_json, of_json),
    "lhttp.protobuf": (to_protobuf, of_protobuf),
}


class Member:
    """A client in the room."""

    def __init__(self, client: ClientConnection, name: str) -> None:
        assert client.subprotocol == name
        self._client = client
        self._write, self._read = CODECS[name]

    def send(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        send_bytes(self._client, *self._write(command, headers, body))

    def take(self) -> tuple[str, str, bytes]:
        return self._read(recv_bytes(self._client)[0])


def test_bodies_are_the_same_for_clients_of_all_codecs(server: ServerProcess) -> None:
    with (
        open_client(server.port, subprotocols=["lhttp"]) as text,
        open_client(server.port, subprotocols=["unknown", "lhttp.json", "lhttp"]) as json_client,
        open_client(server.port, subprotocols=["lhttp.protobuf"]) as protobuf,
    ):
        clients = (text, json_client, protobuf)
        members = [Member(client, name) for client, name in zip(clients, CODECS, strict=True)]
        for member in members:
            member.send("x", {"subscribe": "room", "receipt": "in"})
            assert member.take() == ("receipt", "in", b"")
        for sender in members:
            for number, body in enumerate(BODIES):
                sender.send("chat", {"publish": "room", "receipt": str(number)}, body)
            for member in members:
                found = [member.take() for _ in range(len(BODIES) * (2 if member is sender else 1))]
                assert [body for command, _, body in found if command == "chat"] == BODIES
                receipts = [receipt for command, receipt, _ in found if command == "receipt"]
                assert receipts == ([*map(str, range(len(BODIES)))] if member is sender else [])


def test_a_failure_is_told_in_the_clients_codec(server: ServerProcess) -> None:
    for name in CODECS:
        with open_client(server.port, subprotocols=[name]) as client:
            member = Member(client, name)
            member.send("x", {"subscribe": "$not.allowed", "receipt": "7"})
            assert member.take() == ("error", "7", b"")
            member.send("echo", {}, b"still here")
            assert member.take() == ("echo", "", b"still here")


def test_json_without_sense_harms_nobody(server: ServerProcess) -> None:
    with open_client(server.port, subprotocols=["lhttp.json"]) as client:
        for wrong in ("[" * 65_536, "[" + "[]," * 20_000 + "[]]", '{"a":' * 10_000, "1" * 65_536, "null"):
            client.send(wrong)
            found = json.loads(client.recv(TIME_LIMIT))
            assert found["COMMAND"] == "error" and found["HEADERS"]["status"] in ("400", "413")
        client.send('{"COMMAND":"echo","BODY":"still here"}')
        assert json.loads(client.recv(TIME_LIMIT))["BODY"] == "still here"


def test_json_clients_may_use_deflate(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--deflate")
    with (
        open_client(server.port, subprotocols=["lhttp.json"], compression="deflate") as zipped,
        open_client(server.port, subprotocols=["lhttp.json"], compression=None) as plain,
    ):
        for client in (zipped, plain):
            client.send('{"COMMAND":"x","HEADERS":{"subscribe":"room","receipt":"1"}}')
            client.recv(TIME_LIMIT)
        zipped.send(json.dumps({"COMMAND": "chat", "HEADERS": {"publish": "room"}, "BODY": "hello " * 2_000}))
        assert zipped.recv(TIME_LIMIT) == plain.recv(TIME_LIMIT)


NODE = """
const [url, name] = process.argv.slice(1);
const socket = new WebSocket(url, name);
socket.binaryType = "arraybuffer";
const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const send = (found) => socket.send(JSON.stringify(found));
socket.onopen = () => send({ COMMAND: "x", HEADERS: { subscribe: "room", receipt: "in" } });
socket.onmessage = ({ data }) => {
  const found = JSON.parse(data);
  if (found.COMMAND === "receipt") {
    send({ VERSION: "LHTTP/1.0", COMMAND: "chat", HEADERS: { publish: ["room"] }, BODY: "from Node \\u{1f600}" });
    send({ COMMAND: "chat", HEADERS: [["publish", "room"]], BODY_BASE64: "AP/+" });
  } else if (found.COMMAND === "bye") {
    socket.close();
  } else {
    console.log(socket.protocol, found.BODY ?? [...bytes(found.BODY_BASE64)].join(" "));
  }
};
socket.onerror = () => console.log("failed");
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_node_is_in_the_room(server: ServerProcess) -> None:
    with (
        open_client(server.port, subprotocols=["lhttp.protobuf"]) as protobuf,
        open_client(server.port) as text,
    ):
        member = Member(protobuf, "lhttp.protobuf")
        member.send("x", {"subscribe": "room", "receipt": "in"})
        assert member.take() == ("receipt", "in", b"")
        text.send(message("x", {"subscribe": "room", "receipt": "in"}))
        text.recv(TIME_LIMIT)
        url = f"ws://127.0.0.1:{server.port}/"
        process = subprocess.Popen(
            ["node", "--no-warnings", "--experimental-websocket", "-e", NODE, "--", url, "lhttp.json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            for body in ("from Node \U0001f600".encode(), b"\x00\xff\xfe"):
                assert member.take() == ("chat", "", body)
                assert of_text(recv_bytes(text)[0]) == ("chat", "", body)
            member.send("chat", {"publish": "room"}, b"from Protocol Buffers")
            text.send(message("bye", {"publish": "room"}))
            printed, _ = process.communicate(timeout=TIME_LIMIT)
        finally:
            process.kill()
            process.wait()
    assert printed.splitlines() == [
        "lhttp.json from Node \U0001f600",
        "lhttp.json 0 255 254",
        "lhttp.json from Protocol Buffers",
    ]
