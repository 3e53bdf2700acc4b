"""lhttp_tx.web.admin.incidents: the newest errors, closes and warnings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import Logger

from lhttp_tx.testing import Client, Server
from lhttp_tx.transports.endings import Ending
from lhttp_tx.web.admin.incidents import MAX_INCIDENTS, MAX_TEXT, Incidents

_log = Logger("lhttp_tx.somewhere")


class Stage:
    """A server whose incidents are kept."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.server = Server(clock=self.clock)
        self.incidents = Incidents(self.clock, self.clock.seconds, self.server.control.name_of)
        self.incidents.start(self.server.engine)

    def connect(self, user: str | None = "ann") -> Client:
        return self.server.connect(user=user)

    def newest(self, *kinds: str, limit: int = 1000) -> list[dict[str, Any]]:
        return self.incidents.newest({"kinds": kinds, "limit": limit})


@pytest.fixture
def stage() -> Iterator[Stage]:
    found = Stage()
    yield found
    found.incidents.stop(found.server.engine)


def test_an_error_message_to_a_client_is_kept(stage: Stage) -> None:
    client = stage.connect()
    client.send("nonsense")
    (found,) = stage.newest("error")
    assert (found["code"], found["user"], found["connection"]) == (400, "ann", client.session.identity.connection_id)
    assert found["text"]
    assert stage.incidents.failed == 1


def test_a_close_is_kept(stage: Stage) -> None:
    first, second = stage.connect(), stage.connect(None)
    first.session.close(4001, "go")
    second.disconnect()
    assert stage.newest("close") == []
    stage.clock.advance(0)
    assert [row["user"] for row in stage.newest("close")] == [None, "ann"]
    assert (stage.incidents.opened, stage.incidents.closed) == (2, 2)


def test_many_closes_at_once_are_counted_and_few_are_kept(stage: Stage) -> None:
    for client in [stage.connect() for _ in range(300)]:
        client.session.close()
    stage.clock.advance(0)
    assert stage.incidents.closed == 300
    assert len(stage.newest("close")) == 100


def test_warnings_and_refusals_of_the_log_are_kept(stage: Stage) -> None:
    _log.info("all is well")
    _log.warn("{what} is late", what="x" * 1000)
    _log.info("{peer}: no", peer="p", event="login.refused")
    _log.warn("{missing}")
    found = stage.newest("log")
    assert [row["level"] for row in found] == ["warn", "info", "warn"]
    assert found[1]["event"] == "login.refused"
    assert len(found[2]["text"]) == MAX_TEXT


def test_a_failure_is_kept_without_its_traceback(stage: Stage, failures: list[Any]) -> None:
    try:
        raise ValueError("secret")
    except ValueError:
        _log.failure("it failed")
    (found,) = stage.newest("log")
    assert (found["level"], found["text"]) == ("critical", "it failed (ValueError)")
    assert len(failures) == 1


def test_the_rings_are_bounded_and_the_newest_comes_first(stage: Stage) -> None:
    client = stage.connect()
    for _ in range(MAX_INCIDENTS + 50):
        stage.clock.advance(1)
        stage.incidents.session_failed(client.session, 400, "no")
        stage.incidents.session_failed(client.session, 404, "no")
        _log.warn("oh")
    assert len(stage.newest("error")) == len(stage.newest("log")) == MAX_INCIDENTS
    assert [row["code"] for row in stage.newest("error", "close", limit=3)] == [404, 400, 404]


def test_it_stops(stage: Stage) -> None:
    stage.incidents.stop(stage.server.engine)
    _log.warn("oh")
    stage.connect()
    assert stage.newest("log") == []
    assert stage.incidents.opened == 0
    assert stage.server.engine.watchers == []


def test_a_close_tells_its_code_and_why_whatever_the_transport(stage: Stage) -> None:
    client = stage.connect()
    client.session._transport.ending = Ending(4001, "go " * MAX_TEXT, "server")
    client.disconnect()
    stage.clock.advance(0)
    (found,) = stage.newest("close")
    assert (found["code"], found["text"]) == (4001, ("go " * MAX_TEXT)[:MAX_TEXT])
