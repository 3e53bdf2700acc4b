"""The presence of the Python client in a cluster of two real nodes, also when they do not hear each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration._client import url_of
from integration._nats import needs_nats
from integration._server import RawClient, ServerProcess, wait_until

from cluster._cluster import join
from cluster._faults import Proxy, two_servers
from lhttp_tx.client.sync import Client

pytestmark = needs_nats

DEAD_WITHIN = 30.0
"""Seconds after which a node is taken for dead, or is back, even on a busy machine."""


class Pair:
    """Two nodes, each at its own nats-server, and the proxy between these."""

    def __init__(self, tmp_path: Path) -> None:
        self.route: Proxy
        *self.servers, self.route = two_servers(0.0)
        options = ("--presence", "room", "--presence-grace", "0.5", "--login-parameter", "name")
        self.nodes = [ServerProcess("--nats", server.url, *options, cwd=tmp_path) for server in self.servers]
        for node in self.nodes:
            join(node)
        for node in self.nodes:
            node.wait_for_log("has joined")

    def stop(self) -> None:
        try:
            for node in self.nodes:
                node.check()
        finally:
            self.route.close()
            for server in self.servers:
                server.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.stop()


@pytest.fixture
def come() -> Iterator[Callable[[ServerProcess, str], RawClient]]:
    clients: list[RawClient] = []

    def come(node: ServerProcess, name: str) -> RawClient:
        clients.append(RawClient(node.port, f"/?name={name}"))
        clients[-1].subscribe("room")
        return clients[-1]

    yield come
    for client in clients:
        client.close()


Come = Callable[[ServerProcess, str], RawClient]


def test_people_of_all_nodes_are_followed_until_their_node_is_killed(pair: Pair, come: Come) -> None:
    here, there = pair.nodes
    come(here, "alice")
    bob = come(there, "bob")
    with Client(url_of(here.port)) as client:
        earlier = client.presence("room")
        wait_until(lambda: earlier.complete and earlier.count == 2, "both are known, and the nodes hear each other")
        told: list[tuple[str, str | None]] = []
        presence = client.presence(
            "room",
            on_join=lambda user, connection: told.append(("join", user)),
            on_leave=lambda user, connection: told.append(("leave", user)),
        )
        assert (sorted(presence.users), presence.count, presence.complete) == (["alice", "bob"], 2, True)
        come(there, "carol")
        wait_until(lambda: presence.has("carol"), "carol has come")
        bob.close()
        wait_until(lambda: not presence.has("bob"), "bob has left")
        there.crash()
        wait_until(lambda: presence.users == ["alice"], "the people of the dead node have left", DEAD_WITHIN)
        assert told == [("join", "carol"), ("leave", "bob"), ("leave", "carol")]
        assert presence.count == 1


def test_a_list_is_asked_for_again_until_the_nodes_hear_each_other(pair: Pair, come: Come) -> None:
    here, there = pair.nodes
    come(here, "alice")
    come(there, "bob")
    with Client(url_of(here.port)) as client:
        earlier = client.presence("room")
        wait_until(lambda: earlier.complete and earlier.count == 2, "both are known")
        pair.route.cut()
        here.wait_for_log("no longer sends heartbeats")
        syncs: list[bool] = []
        presence = client.presence("room", on_sync=lambda synced: syncs.append(synced.complete))
        assert not presence.complete
        wait_until(lambda: len(syncs) > 1, "it has asked again", DEAD_WITHIN)
        pair.route.heal()
        wait_until(lambda: presence.complete, "the list is complete", DEAD_WITHIN)
        wait_until(lambda: sorted(presence.users) == ["alice", "bob"], "both are listed again", DEAD_WITHIN)
        wait_until(lambda: sorted(earlier.users) == ["alice", "bob"], "the other presence is right, too", DEAD_WITHIN)
        assert syncs[0] is False and syncs[-1] is True
        assert (presence.count, earlier.count) == (2, 2)
