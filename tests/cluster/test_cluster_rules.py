"""Identity, channel rules, hooks, wildcards and compression on three nodes: what holds on one holds on each."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
from integration._nats import NATSProcess, needs_nats
from integration._server import RawClient, ServerProcess, http_request, message, open_client, recv_bytes
from token_makers import SECRET, make_token, unsigned
from websockets.exceptions import InvalidStatus

from cluster._cluster import join

pytestmark = needs_nats

CONFIG = """
jwt-key-file = "secret"
jwt-audience = "chat"
hooks = "own.py:Polite"

[[channel]]
match = "user.{user}"
subscribe = "{user}"
publish = "authenticated"

[[channel]]
match = "news.>"
publish = "nobody"
wildcards = true

[[channel]]
match = "room"
"""

HOOKS = """
from lhttp_tx import Hooks, Refused


class Polite(Hooks):
    def on_message(self, request):
        if b"damn" in request.body:
            raise Refused(403, "mind your language")
"""


def token(user: str, **claims: object) -> str:
    return make_token(sub=user, **{"aud": "chat", **claims})


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    directory = tmp_path_factory.mktemp("nodes")
    (directory / "secret").write_bytes(SECRET)
    (directory / "lhttp.toml").write_text(CONFIG, encoding="utf-8")
    (directory / "own.py").write_text(HOOKS, encoding="utf-8")
    nats = NATSProcess()
    processes = [ServerProcess("--config", "lhttp.toml", "--nats", nats.url, cwd=directory) for _ in range(3)]
    for process in processes:
        join(process)
    yield processes
    for process in processes:
        process.check()
    nats.stop()


@pytest.fixture
def members(nodes: list[ServerProcess]) -> Iterator[dict[str, RawClient]]:
    """One member on each node."""
    clients = {}
    for node, name in zip(nodes, ("ann", "bob", "carol"), strict=True):
        clients[name] = RawClient(node.port, headers=[f"Authorization: Bearer {token(name)}"])
    yield clients
    for client in clients.values():
        client.stream.close()
        client.sock.close()


@pytest.mark.parametrize(
    ("bearer", "reason"),
    [
        (make_token(key=b"another secret of thirty-two bytes...", aud="chat"), "token has a wrong signature"),
        (token("eve", exp=1_000_000_000), "token has expired"),
        (token("eve", aud="shop"), "token is for another audience"),
        (unsigned(aud="chat"), "token is signed with 'none', its key is for HS256"),
        ("nonsense", "token is malformed"),
    ],
)
def test_a_wrong_token_is_refused_on_every_node(nodes: list[ServerProcess], bearer: str, reason: str) -> None:
    for node in nodes:
        with (
            pytest.raises(InvalidStatus) as caught,
            open_client(node.port, additional_headers={"Authorization": f"Bearer {bearer}"}),
        ):
            pass
        assert caught.value.response.status_code == 401
        assert caught.value.response.body == f"{reason}\n".encode()


def test_a_private_channel_is_its_owners_on_every_node(members: dict[str, RawClient]) -> None:
    members["carol"].subscribe("user.carol")
    for name in ("ann", "bob"):
        members[name].send(message("x", {"subscribe": "user.carol", "receipt": "1"}))
        assert members[name].receive()[1] == (
            b"LHTTP/1.0 error\r\nstatus:403\r\nreason:not allowed to subscribe to channel 'user.carol'\r\n"
            b"receipt-id:1\r\n\r\n"
        )
        letter = message("mail", {"publish": "user.carol"}, f"from {name}")
        members[name].send(letter)
        assert members["carol"].receive()[1] == letter.encode()


def test_a_channel_for_nobody_refuses_clients_and_takes_programs(
    nodes: list[ServerProcess], members: dict[str, RawClient]
) -> None:
    members["bob"].send(message("x", {"subscribe": "news.*", "receipt": "1"}))
    assert b"receipt-id:1" in members["bob"].receive()[1]
    members["ann"].send(message("x", {"publish": "news.7", "receipt": "1"}, "fake"))
    assert b"reason:not allowed to publish to channel 'news.7'\r\n" in members["ann"].receive()[1]
    real = message("chat", {"publish": "news.7"}, "real")
    assert http_request(nodes[2].port, "POST", "/publish", real)[0] == 200
    assert members["bob"].receive()[1] == real.encode()


def test_a_message_that_a_hook_vetoes_reaches_nobody(members: dict[str, RawClient]) -> None:
    members["carol"].subscribe("room")
    members["ann"].send(message("chat", {"publish": "room", "receipt": "1"}, "damn"))
    assert members["ann"].receive()[1] == (
        b"LHTTP/1.0 error\r\nstatus:403\r\nreason:mind your language\r\nreceipt-id:1\r\n\r\n"
    )
    members["bob"].send(message("chat", {"publish": "room"}, "good evening"))
    assert members["carol"].receive()[1].endswith(b"good evening")


def test_who_asked_for_gzip_gets_it_from_every_node(nodes: list[ServerProcess], members: dict[str, RawClient]) -> None:
    with open_client(
        nodes[0].port, "/?support_gzip=1", additional_headers={"Authorization": f"Bearer {token('dave')}"}
    ) as client:
        client.send(message("x", {"subscribe": "room", "receipt": "1"}))
        recv_bytes(client)
        for name in ("ann", "bob", "carol"):
            members[name].send(message("chat", {"publish": "room"}, f"from {name}"))
            payload, binary = recv_bytes(client)
            assert binary
            assert gzip.decompress(payload).endswith(f"from {name}".encode())
