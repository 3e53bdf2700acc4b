"""The start and the stop of a server, as those see it who are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

import lhttp_tx
from lhttp_tx import Authenticator, HeaderFilter, Hooks, Message, Processor, Request, Session, processor, running
from lhttp_tx.config import Config
from lhttp_tx.errors import StartFailed
from lhttp_tx.interfaces import IServer
from lhttp_tx.observe import rationing
from lhttp_tx.running import RunningServer
from lhttp_tx.service import LHTTPService
from lhttp_tx.testing import Server
from unit.engine.test_awaiting import in_loop, turns


class Told:
    """Says what it was told."""

    def __init__(self, told: list[Any], name: str, waiting: Deferred[None] | None = None) -> None:
        self.told = told
        self.name = name
        self.waiting = waiting
        if isinstance(self, Processor):
            self.command = name

    def on_start(self, server: RunningServer) -> Any:
        self.told.append(("start", self.name, server))
        return self.waiting

    def on_stop(self, server: RunningServer) -> Any:
        self.told.append(("stop", self.name, server))


class ToldProcessor(Told, Processor):
    pass


class ToldFilter(Told, HeaderFilter):
    def on_disconnect(self, session: Session) -> None:
        self.told.append(("disconnect", self.name, session.server))


class ToldHooks(Told, Hooks):
    pass


class ToldAuthenticator(Told, Authenticator):
    pass


def everything(told: list[Any]) -> dict[str, Any]:
    both = type("Both", (ToldProcessor, HeaderFilter), {})(told, "both")
    return {
        "processors": [ToldProcessor(told, "processor"), both],
        "filters": [both, ToldFilter(told, "filter")],
        "hooks": [ToldHooks(told, "hooks")],
        "authenticators": [ToldAuthenticator(told, "authenticator")],
    }


ORDER = ["hooks", "authenticator", "processor", "both", "filter"]


class Stage:
    """A service on a clock."""

    def __init__(self, **settings: Any) -> None:
        self.clock: Any = Clock()
        config = settings.pop("config", None)
        self.service = LHTTPService(config, reactor=self.clock, **settings)

    def outcome(self) -> list[Any]:
        outcome: list[Any] = []
        self.service.when_started().addBoth(lambda result: outcome.append(getattr(result, "value", result)))
        return outcome

    @property
    def health(self) -> str:
        health: Any = self.service.resource.children[b"health"]
        return str(health.status)

    def stop(self) -> list[None]:
        stopped: list[None] = []
        self.service.stopService().addCallback(stopped.append)
        self.clock.pump([1] * 30)
        return stopped


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No server of a test is left running."""
    yield
    assert not running._servers
    assert rationing._ration.clocks == []


def test_everybody_is_told_once_and_of_the_stop_in_reverse() -> None:
    told: list[Any] = []
    stage = Stage(**everything(told))
    assert told == []
    stage.service.startService()
    assert told == [("start", name, stage.service.server) for name in ORDER]
    told.clear()
    assert stage.stop() == [None]
    assert told == [("stop", name, stage.service.server) for name in reversed(ORDER)]


def test_a_server_can_be_started_again() -> None:
    told: list[Any] = []
    stage = Stage(processors=[ToldProcessor(told, "x")])
    for _ in range(2):
        stage.service.startService()
        stage.stop()
    assert [what for what, _, _ in told] == ["start", "stop"] * 2


def test_a_server_for_tests_tells_the_same() -> None:
    told: list[Any] = []
    server = Server(**everything(told))
    assert [name for _, name, _ in told] == ORDER
    told.clear()
    server.stop()
    assert [name for _, name, _ in told] == ORDER[::-1]


def test_the_stop_comes_behind_the_end_of_every_connection() -> None:
    told: list[Any] = []
    server = Server(filters=[ToldFilter(told, "filter")])
    server.connect()
    told.clear()
    server.stop()
    assert [what for what, _, _ in told] == ["disconnect", "stop"]


def test_nobody_comes_in_before_the_start_is_done() -> None:
    waiting: Deferred[None] = Deferred()
    stage = Stage(processors=[ToldProcessor([], "x", waiting)])
    stage.service.startService()
    outcome = stage.outcome()
    assert (outcome, stage.health, stage.service.factory.draining) == ([], "starting", True)
    waiting.callback(None)
    assert (outcome, stage.health, stage.service.factory.draining) == ([None], "ok", False)
    stage.stop()
    assert stage.health == "stopping"


class Broken(Processor):
    command = "broken"

    async def on_start(self, server: RunningServer) -> None:
        raise OSError("no database")


def test_a_start_that_fails_stops_the_server(failures: list[Any]) -> None:
    told: list[Any] = []
    stage = Stage(processors=[ToldProcessor(told, "x"), Broken()], filters=[ToldFilter(told, "behind")])
    before = stage.outcome()
    stage.service.startService()
    stage.clock.pump([1] * 30)
    assert not stage.service.running
    assert [(what, name) for what, name, _ in told] == [("start", "x"), ("stop", "x")]
    for (error,) in (before, stage.outcome()):
        assert repr(error) == "StartFailed('Broken did not start: no database')"
    assert [type(error) for error in failures] == [OSError]
    stage.stop()


class Unlucky(ToldProcessor):
    async def on_start(self, server: RunningServer) -> None:
        raise StartFailed("make the folder")


def test_a_start_that_says_why_it_fails_is_told_in_its_own_words_alone(failures: list[Any]) -> None:
    stage = Stage(processors=[Unlucky([], "x")])
    stage.service.startService()
    stage.clock.pump([1] * 30)
    (error,) = stage.outcome()
    assert repr(error) == "StartFailed('make the folder')"
    assert failures == []
    stage.stop()


def test_a_start_that_fails_is_told_by_a_server_for_tests(failures: list[Any]) -> None:
    outcome: list[Any] = []
    Server(processors=[Broken()]).when_started().addErrback(outcome.append)
    assert [failure.type for failure in outcome] == [StartFailed]
    assert len(failures) == 1


def test_a_stop_cancels_a_start_that_takes_long() -> None:
    told: list[Any] = []
    stage = Stage(processors=[ToldProcessor(told, "x"), ToldProcessor(told, "y", Deferred())])
    stage.service.startService()
    assert stage.stop() == [None]
    assert [(what, name) for what, name, _ in told] == [("start", "x"), ("start", "y"), ("stop", "x")]


def test_a_start_has_a_time_limit(failures: list[Any]) -> None:
    slow = ToldProcessor([], "slow", Deferred())
    slow.timeout = 7
    stage = Stage(processors=[slow])
    stage.service.startService()
    outcome = stage.outcome()
    stage.clock.pump([1] * 40)
    assert "not done within 7 seconds" in str(outcome[0])
    assert len(failures) == 1
    stage.stop()


def test_a_failing_stop_does_not_keep_it_from_the_others(failures: list[Any]) -> None:
    class Failing(ToldProcessor):
        def on_stop(self, server: RunningServer) -> None:
            raise KeyError("gone")

    told: list[Any] = []
    stage = Stage(processors=[ToldProcessor(told, "x"), Failing(told, "y")])
    stage.service.startService()
    assert stage.stop() == [None]
    assert told[-1][:2] == ("stop", "x")
    assert [type(error) for error in failures] == [KeyError]


@in_loop
async def test_a_start_may_await_what_asyncio_waits_for() -> None:
    class Pool(Processor):
        command = "pool"
        open = False

        async def on_start(self, server: RunningServer) -> None:
            await asyncio.sleep(0)
            self.open = True

        async def on_stop(self, server: RunningServer) -> None:
            await asyncio.sleep(0)
            self.open = False

    pool = Pool()
    server = Server(processors=[pool])
    await server.when_started()
    assert pool.open
    server.stop()
    await turns()
    assert not pool.open


# What they see of the server


@processor("tell")
def tell(request: Request) -> None:
    server = request.server
    assert server is request.session.server
    server.publish("room", "told", body=server.settings("lhttp_shout").get("word", "nothing"))


def test_two_servers_do_not_mix() -> None:
    servers = [Server(processors=[tell], plugins={"lhttp_shout": {"word": word}}) for word in ("one", "two")]
    clients = [server.connect() for server in servers]
    for client in clients:
        client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
        client.send(Message("tell"))
    assert [[message.text for message in client.take()] for client in clients] == [["one"], ["two"]]
    for server, client in zip(servers, clients, strict=True):
        seen = client.session.server
        assert verifyObject(IServer, seen)
        assert seen is server.server
        assert (seen.control, seen.presence, seen.clock) == (server.control, server.presence, server.clock)
        assert seen.name == server.assembly.nodes.name
        assert seen.name in repr(seen)
    assert servers[0].server.name != servers[1].server.name


def test_settings_that_nobody_asks_for_are_known() -> None:
    stage = Stage(processors=[tell], config=Config(plugins={"b": {}, "a": {"x": 1}}))
    assert stage.service.server.settings("a") == {"x": 1}
    assert stage.service.server.settings("c") == {}
    assert stage.service.server.unasked == ("b",)


@pytest.mark.parametrize("plugins", [{"a": 1}, {1: {}}, [], {"a": {1: 2}}])
def test_settings_for_plugins_are_tables(plugins: Any) -> None:
    with pytest.raises(TypeError, match="plugins is a mapping of a str to a mapping of a str to anything, not"):
        Config(plugins=plugins)


def test_publish_of_the_package_finds_the_server_while_it_starts() -> None:
    found: list[Any] = []

    class Early(Processor):
        command = "early"

        def on_start(self, server: RunningServer) -> Any:
            found.append(server)
            return lhttp_tx.publish("room", "up")

    stage = Stage(processors=[Early()])
    stage.service.startService()
    assert stage.outcome() == [None]
    assert found == [stage.service.server]
    stage.stop()
