"""What /ready and /live say, and with which status."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.server import Site

from lhttp_tx.web.health import put_checks

pytestmark = pytest.mark.usefixtures("clock")


class Node:
    """All that is asked, in order until a test changes it."""

    available = intact = has_store = True
    refuses = starting = draining = is_leaving = False
    maxConnections, countConnections = 2, 1

    def ask(self, path: str, method: str = "GET") -> tuple[int, Any]:
        root = Resource()
        found: Any = self
        put_checks(
            root,
            *(found, found, found, found),
            has_store=lambda: self.has_store,
            is_leaving=lambda: self.is_leaving,
        )
        transport = StringTransport()
        protocol = Site(root, reactor=Clock()).buildProtocol(transport.getPeer())
        protocol.makeConnection(transport)
        protocol.dataReceived(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = transport.value().partition(b"\r\n\r\n")
        try:
            return int(head.split()[1]), json.loads(body)
        except ValueError:
            return int(head.split()[1]), body


def test_a_node_that_works_is_ready_and_live() -> None:
    assert Node().ask("/ready") == (200, {"status": "ready", "reasons": []})
    assert Node().ask("/live") == (200, {"status": "live", "reasons": []})


REASONS: dict[str, dict[str, Any]] = {
    "stopping": {"is_leaving": True},
    "starting": {"draining": True, "starting": True},
    "full": {"countConnections": 2},
    "bus": {"available": False},
    "history": {"has_store": False},
    "listening": {"intact": False},
}


@pytest.mark.parametrize("reason", REASONS)
def test_one_reason_makes_it_unready_and_leaves_it_live(reason: str) -> None:
    node = Node()
    vars(node).update(REASONS[reason])
    assert node.ask("/ready") == (503, {"status": "unready", "reasons": [reason]})
    assert node.ask("/live") == (200, {"status": "live", "reasons": [reason]})


def test_refused_connections_make_it_full() -> None:
    node = Node()
    node.refuses = True
    assert node.ask("/ready") == (503, {"status": "unready", "reasons": ["full"]})


def test_all_reasons_are_told() -> None:
    node = Node()
    for found in REASONS.values():
        vars(node).update(found)
    node.starting = False
    assert node.ask("/ready")[1]["reasons"] == ["stopping", "full", "bus", "history", "listening"]


def test_health_says_stopping_as_soon_as_the_server_is_told_to_stop() -> None:
    node = Node()
    node.is_leaving = True
    assert node.ask("/health") == (503, {"status": "stopping"})


@pytest.mark.parametrize("path", ["/live", "/ready"])
def test_only_reading_is_allowed_and_only_the_plain_path(path: str) -> None:
    assert Node().ask(path, "POST")[0] == 405
    assert Node().ask(path, "HEAD") == (200, b"")
    assert Node().ask(f"{path}/")[0] == 404
