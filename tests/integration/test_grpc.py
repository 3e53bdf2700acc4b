"""The gRPC side of real servers and clusters: the same methods, keys and limits as over HTTP, and hostile callers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc", reason="grpcio is missing (the extra grpc)")
pytest.importorskip("google.protobuf", reason="protobuf is missing (the extra grpc)")

import grpc
from click.testing import CliRunner
from google.protobuf import json_format

from integration._nats import NATSProcess, needs_nats
from integration._server import TIME_LIMIT, ServerProcess, http_request, message, open_client, script, wait_until
from integration.test_admin_api import CONFIG as HTTP_CONFIG, EDITOR, SCOPES, SECRET, Admin, subscribe
from lhttp_tx.client.command.admin import admin_command
from lhttp_tx.observe.methods import BY_NAME, METHODS
from lhttp_tx.web.admin.grpc.listening import MAX_CONNECTIONS
from lhttp_tx.web.admin.grpc.messages import Messages
from lhttp_tx.web.admin.proto import PROTO, SERVICE, rpc_name

CONFIG = HTTP_CONFIG.replace("[admin]\n", '[admin]\ngrpc = "tcp:0:interface=127.0.0.1"\n')
MESSAGES = Messages()
CODES = {403: "PERMISSION_DENIED"}


class Both(Admin):
    """Asks the admin side of a server over HTTP, with the command, and over gRPC."""

    def __init__(self, server: ServerProcess, credentials: Any = None) -> None:
        super().__init__(server)
        server.wait_for_log("gRPC side on")
        found = re.search(r"gRPC side on (127\.0\.0\.1:\d+)", server.log)
        assert found is not None
        self.address = found[1]
        options = (("grpc.max_receive_message_length", -1),)
        self.channel = (
            grpc.insecure_channel(self.address, options)
            if credentials is None
            else grpc.secure_channel(self.address, credentials, options)
        )

    def stub(self, method: str, kind: str = "unary_unary") -> Any:
        return getattr(self.channel, kind)(f"/{SERVICE}/{rpc_name(method)}")

    def remote(self, method: str, params: Any = None, *, secret: str = SECRET, **metadata: str) -> Any:
        """Return the answer of gRPC as HTTP has it, or the name of a status code."""
        request = json_format.ParseDict(params or {}, MESSAGES._requests[method]())
        told = [("authorization", f"Bearer {secret}")]
        told += [(name.replace("_", "-"), value) for name, value in metadata.items()]
        try:
            data = self.stub(method)(request.SerializeToString(), metadata=told, timeout=TIME_LIMIT)
        except grpc.RpcError as error:
            return error.code().name
        answer: Any = MESSAGES._responses[method].FromString(data)
        return whole(json_format.MessageToDict(answer))

    def order(self, method: str, params: Any = None) -> Any:
        """Return the answer that the command prints."""
        done = self.command("call", method, json.dumps(params or {}))
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def command(self, *arguments: str) -> Any:
        """Run ``lhttp admin`` in this process: test_admin_api.py runs the program."""
        environment = {"LHTTP_ADMIN_KEY": SECRET, "LHTTP_ADMIN_URL": f"http://127.0.0.1:{self.port}"}
        return CliRunner().invoke(admin_command, ["--timeout", str(TIME_LIMIT), *arguments], env=environment)


def whole(value: Any) -> Any:
    """Return a JSON value of Protocol Buffers as HTTP has it: numbers are no text, and headers are pairs."""
    if isinstance(value, list):
        return [whole(each) for each in value]
    if isinstance(value, dict):
        if value.keys() == {"name", "value"}:
            return [value["name"], value["value"]]
        return {name: whole(each) for name, each in value.items()}
    return int(value) if isinstance(value, str) and value.isdigit() else value


def bare(value: Any) -> Any:
    """Return an answer without what is nothing, which gRPC does not send, and with numbers for texts of digits."""
    if isinstance(value, list):
        return [bare(each) for each in value]
    if isinstance(value, dict):
        return {name: bare(each) for name, each in value.items() if each not in (None, [], {})}
    return int(value) if isinstance(value, str) and value.isdigit() else value


def prepare(directory: Path, text: str = CONFIG) -> None:
    (directory / "lhttp.toml").write_text(text, "utf-8")
    for name, secret in (("key", SECRET), ("editor", EDITOR)):
        (directory / name).write_text(secret, "utf-8")
        (directory / name).chmod(0o600)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    directory = tmp_path_factory.mktemp("grpc")
    prepare(directory)
    server = ServerProcess("--config", "lhttp.toml", "--history", "news.>", cwd=directory)
    both = Both(server)
    yield both
    both.channel.close()
    server.check()


def test_a_scope_refuses_what_it_refuses_over_http(shared: Both) -> None:
    for method, params, status in SCOPES:
        found = shared.remote(method, params, secret=EDITOR)
        assert (found if isinstance(found, str) else 200) == CODES.get(status, status), (method, params)
    assert shared.remote("info", secret="a-wrong-secret-0123456789") == "UNAUTHENTICATED"


def test_a_call_is_made_once_whichever_way_it_is_repeated(shared: Both) -> None:
    params = {"channel": "news.once", "command": "chat", "body": "hello"}
    _, first = shared.ask("publish", params, Idempotency_Key="one")
    assert shared.remote("publish", params, idempotency_key="one") == first
    assert shared.ask("publish", params, Idempotency_Key="one")[1] == first
    assert len(shared.call("history", channel="news.once")["messages"]) == 1


def test_the_file_is_for_those_with_a_key(shared: Both) -> None:
    assert http_request(shared.port, "GET", "/api/admin.proto")[0] == 401
    status, _, body = http_request(shared.port, "GET", "/api/admin.proto", None, {"Authorization": f"Bearer {EDITOR}"})
    assert (status, body) == (200, PROTO.read_bytes())


def test_connections_have_a_bound(shared: Both) -> None:
    host, _, port = shared.address.rpartition(":")
    with ExitStack() as opened:
        connections = [
            opened.enter_context(socket.create_connection((host, int(port)), TIME_LIMIT))
            for _ in range(MAX_CONNECTIONS + 20)
        ]
        greeted = [_first_bytes(connection) for connection in connections]
        assert MAX_CONNECTIONS - 5 <= len([each for each in greeted if each]) <= MAX_CONNECTIONS
    wait_until(lambda: shared.remote("info") != "UNAVAILABLE", "room for a caller")


def _first_bytes(connection: socket.socket) -> bytes:
    """Return what the server says first; nothing if it closes the connection."""
    with suppress(ConnectionError):
        return connection.recv(9)
    return b""


def test_hostile_callers_get_nowhere(shared: Both) -> None:
    metadata = (("authorization", f"Bearer {SECRET}"),)
    info = shared.stub("info")

    def refused(data: bytes = b"", told: Any = metadata, stub: Any = info, **more: Any) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            stub(data, metadata=told, timeout=TIME_LIMIT, **more)
        return str(caught.value.code().name)

    assert refused(told=(*metadata, ("x", "y" * 1_000_000))) == "RESOURCE_EXHAUSTED"
    assert refused(bytes(2_200_000)) == "RESOURCE_EXHAUSTED"
    assert refused(bytes(50_000_000), told=()) == "UNAUTHENTICATED"
    assert refused(bytes(20_000_000), compression=grpc.Compression.Gzip) == "UNIMPLEMENTED"
    assert refused(stub=shared.stub("nothing")) == "UNIMPLEMENTED"
    assert refused(b"\xff") == "INVALID_ARGUMENT"

    def without_end() -> Iterator[bytes]:
        while True:
            yield b""

    assert shared.stub("info", "stream_unary")(without_end(), metadata=metadata, timeout=TIME_LIMIT)
    for told, outcome in (((), "UNAUTHENTICATED"), (metadata, "OK")):
        calls = [info.future(b"", metadata=told, timeout=3 * TIME_LIMIT) for _ in range(5_000)]
        assert Counter(call.code().name for call in calls) == {outcome: 5_000}
    assert shared.remote("info")["connections"] == 0
    memory = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{shared.server.pid}/status").read_text())
    assert memory is not None and int(memory[1]) < 250_000


@needs_nats
def test_each_method_is_the_same_over_http_over_grpc_and_with_the_command(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    nats = NATSProcess("-js", "-sd", str(tmp_path / "jetstream"))
    prepare(tmp_path)
    try:
        one, two, three = (
            Both(serve("--config", "lhttp.toml", "--nats", nats.url, "--history", "news.>")) for _ in range(3)
        )
        for each in (one, two, three):
            wait_until(lambda each=each: each.call("info")["nodes"] == 3, "three nodes")  # type: ignore[misc]
            wait_until(lambda each=each: each.call("info")["history_up"], "history")  # type: ignore[misc]
        _compare(one, two, three)
        for each in (one, two, three):
            each.channel.close()
    finally:
        nats.stop()


def _compare(one: Both, two: Both, three: Both) -> None:
    """Call each method at one node over HTTP, at another over gRPC, and at the third with the command."""
    tried: list[str] = []

    def same(method: str, params: Any = None, but: tuple[str, ...] = ()) -> Any:
        tried.append(method)
        told = [one.call(method, **(params or {})), two.remote(method, params), three.order(method, params)]
        found = [{name: value for name, value in bare(each).items() if name not in but} for each in told]
        if method == "mutes":  # each call comes a little later
            found = [{"mutes": [row["user"] for row in each["mutes"]]} for each in found]
        if method == "nodes":  # they are in the order in which they answered
            found = [{"nodes": sorted(each["nodes"], key=lambda row: str(row["node"]))} for each in found]
        assert found[0] == found[1] == found[2], (method, found)
        assert found[0].keys() <= BY_NAME[method].answer.keys()
        return told[0]

    with open_client(one.server.port, "/?name=jack") as client:
        subscribe(client, "room.a")
        wait_until(lambda: two.call("presence_stats", channel="room.a")["people"] == 1, "presence at two")
        wait_until(lambda: three.call("presence_stats", channel="room.a")["people"] == 1, "presence at three")
        news = {
            "channel": "news.a",
            "command": "chat",
            "headers": {"by": "me"},
            "body_base64": "/w==",
            "message_id": "1",
        }
        one.call("publish", **news)
        assert same("publish", news)["duplicate"] is True
        assert same("broadcast", {"channels": ["b", "c"], "command": "chat", "body": "ö"}) == {"channels": ["b", "c"]}
        (told,) = same("history", {"channel": "news.a", "limit": 5})["messages"]
        assert (told["body_base64"], ["by", "me"] in told["headers"]) == ("/w==", True)
        assert same("subscribe", {"user": "jack", "channels": ["x.b", "x.c"]})["count"] == 1
        assert one.call("unsubscribe", user="jack", channels=["x.c"])["count"] == 1
        same("unsubscribe", {"user": "jack", "channels": ["x.c"]})
        assert [each["user"] for each in same("presence", {"channel": "room.a"})["people"]] == ["jack"]
        same("presence_stats", {"channel": "room.a"})
        assert [each["channel"] for each in same("channels", {"limit": 1})["channels"]] == ["room.a"]
        same("channels", {"pattern": "x.*"})
        (row,) = same("connections", {"user": "jack"})["connections"]
        same("connection", {"connection": row["connection"]})
        assert same("search", {"text": "JAC"})["found"] == [{"kind": "user", "name": "jack", "count": 1}]
        assert same("users")["users"] == [{"user": "jack", "connections": 1}]
        assert len(same("nodes")["nodes"]) == 3
        same("rates", {"since": 4_000_000_000})
        client.send("nonsense")
        wait_until(lambda: one.call("incidents", kind="error")["incidents"], "an incident")
        same("incidents", {"kind": "error"})
        trace = {"trace": "t", "kind": "user", "name": "jack", "bodies": True}
        one.call("trace", **trace)
        client.send(message("chat", {"publish": "room.a"}, "traced"))
        wait_until(lambda: len(one.call("trace", **trace)["messages"]) >= 2, "traced messages")
        assert same("trace", trace)["messages"][0]["body"] == "traced"
        same("info", but=("node", "started"))
        calls = [{"method": "users"}, {"method": "history", "params": {"channel": "news.a"}}, {"method": "x"}]
        assert [each["status"] for each in same("batch", {"calls": calls})["answers"]] == [200, 200, 404]
        assert one.ask("refresh", {"user": "jack", "expires": 1})[0] == 409
        assert two.remote("refresh", {"user": "jack", "expires": 1}) == "ABORTED"
        assert "status 409" in three.command("call", "refresh", '{"user": "jack", "expires": 1}').stderr
        assert same("history_remove", {"channel": "news.a"}) == {}
        assert same("mute", {"user": "nobody", "seconds": 60})["count"] == 0
        assert [row["user"] for row in same("mutes", {"limit": 1})["mutes"]] == ["nobody"]
        assert same("unmute", {"user": "nobody"})["count"] == 0
        assert two.remote("mute", {"user": "jack"})["count"] == 1
        assert two.remote("unmute", {"user": "jack"})["count"] == 1
        assert same("disconnect", {"user": "nobody", "code": 4001, "reason": "go"})["count"] == 0
        assert two.remote("disconnect", {"user": "jack", "code": 4001})["count"] == 1
        with pytest.raises(Exception, match="4001"):
            while True:
                client.recv(timeout=TIME_LIMIT)
    assert {*tried, "refresh"} == {method.name for method in METHODS}


def test_calls_are_encrypted(
    serve: Callable[..., ServerProcess], tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    key, chain = certificate
    endpoint = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={chain}"
    prepare(tmp_path, CONFIG.replace("tcp:0:interface=127.0.0.1", endpoint, 1))
    both = Both(serve("--config", "lhttp.toml"), grpc.ssl_channel_credentials(chain.read_bytes()))
    with both.channel:
        assert both.remote("info")["nodes"] == 1


def test_a_port_in_use_ends_the_start(shared: Both, tmp_path: Path) -> None:
    port = shared.address.rpartition(":")[2]
    command = [script("twistd"), "-n", "--pidfile=", "lhttp", "--port", "tcp:0", "--admin", "0"]
    done = subprocess.run(
        [*command, "--grpc", port], cwd=tmp_path, capture_output=True, timeout=TIME_LIMIT, check=False, text=True
    )
    assert done.returncode == 1
    assert f"cannot listen on tcp:{port}:interface=127.0.0.1: Address already in use; stop what" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
