"""What a user's code may give to be waited for, of Twisted's kind and of asyncio's."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Generator
from inspect import getcoroutinestate
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail, succeed
from twisted.python.failure import Failure

import lhttp_tx
from lhttp_tx import Authenticator, HeaderFilter, Hooks, Identity, Message, Processor, Request, Session, processor
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.codec.limits import Limits
from lhttp_tx.engine.awaiting import as_deferred, awaitable
from lhttp_tx.testing import Client, Server
from unit.engine.test_hub import SlowBus


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test where an event loop of asyncio runs."""

    def run() -> None:
        async def watched() -> None:
            complaints: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
            await asyncio.wait_for(test(), 30)
            await turns()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            gc.collect()
            assert (complaints, left) == ([], set())

        asyncio.run(watched())

    run.__name__ = test.__name__
    return run


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Told:
    """What became of a Deferred."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.outcome: list[Any] = []
        self.deferred = deferred
        deferred.addBoth(self.outcome.append)

    @property
    def error(self) -> BaseException:
        (failure,) = self.outcome
        assert isinstance(failure, Failure)
        return failure.value


class Later:
    """An awaitable of nobody's kind."""

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        return "later"


async def both(deferred: Deferred[str]) -> str:
    first = await deferred
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        second = await Later()
    return first + second


@in_loop
async def test_a_coroutine_awaits_both_kinds() -> None:
    waiting: Deferred[str] = Deferred()
    told = Told(as_deferred(both(waiting), None))
    await turns()
    assert told.outcome == []
    waiting.callback("sooner or ")
    await turns()
    assert told.outcome == ["sooner or later"]


@in_loop
async def test_it_begins_at_once_and_ends_at_once_if_it_does_not_wait() -> None:
    steps: list[object] = []

    async def quick() -> str:
        steps.append(asyncio.current_task())
        return await succeed("done")

    outside: list[Told] = []
    asyncio.get_running_loop().call_soon(lambda: outside.append(Told(as_deferred(quick(), None))) or steps.append(0))
    await asyncio.sleep(0)
    task, end = steps
    assert isinstance(task, asyncio.Task)
    assert end == 0
    assert outside[0].outcome == ["done"]


@in_loop
async def test_failures_of_both_kinds_can_be_caught() -> None:
    async def careful() -> list[str]:
        caught = []
        for failing in (fail(KeyError("deferred")), raising(ValueError("asyncio"))):
            try:
                await failing
            except (KeyError, ValueError) as error:
                caught.append(error.args[0])
        return caught

    told = Told(as_deferred(careful(), None))
    await turns()
    assert told.outcome == [["deferred", "asyncio"]]


async def raising(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


@in_loop
async def test_a_failure_goes_to_whoever_waits() -> None:
    told = Told(as_deferred(raising(ValueError("no")), None))
    await turns()
    assert repr(told.error) == "ValueError('no')"


@in_loop
async def test_a_future_a_task_and_another_awaitable_are_waited_for() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(both(succeed("now and ")))
    told = [Told(as_deferred(found, None)) for found in (future, task, Later())]
    future.set_result("set")
    await turns(20)
    assert [each.outcome for each in told] == [["set"], ["now and later"], ["later"]]


@in_loop
async def test_cancelling_reaches_what_a_coroutine_waits_for() -> None:
    cancelled: list[str] = []
    waiting: Deferred[str] = Deferred(lambda _: cancelled.append("deferred"))

    async def tidy(awaited: Awaitable[Any]) -> None:
        try:
            await awaited
        finally:
            cancelled.append("coroutine")

    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    told = [Told(as_deferred(tidy(found), None)) for found in (waiting, future)]
    told.append(Told(as_deferred(asyncio.get_running_loop().create_future(), None)))
    await turns()
    for each in told:
        each.deferred.cancel()
    await turns()
    assert [type(each.error) for each in told] == [CancelledError] * 3
    assert sorted(cancelled) == ["coroutine", "coroutine", "deferred"]
    assert future.cancelled()


@in_loop
async def test_cancelling_before_the_first_step_ends_it() -> None:
    async def never() -> None:
        pytest.fail("it was cancelled")

    told = Told(as_deferred(never(), None))  # within a task, so that it waits for its turn
    told.deferred.cancel()
    await turns()
    assert isinstance(told.error, CancelledError)


@in_loop
async def test_a_coroutine_that_does_not_heed_its_cancellation_is_waited_for() -> None:
    let_go = asyncio.Event()

    async def stubborn() -> str:
        try:
            await Deferred()
        except asyncio.CancelledError:
            await let_go.wait()
        return "late"

    told = Told(as_deferred(stubborn(), None))
    await turns()
    told.deferred.cancel()
    await turns()
    assert told.outcome == []
    let_go.set()
    await turns()
    assert told.outcome == ["late"]


@in_loop
async def test_a_time_limit_of_asyncio_ends_the_wait_for_a_deferred() -> None:
    async def impatient() -> str:
        try:
            async with asyncio.timeout(0):
                await Deferred()
        except TimeoutError:
            return "timeout"
        return "never"

    told = Told(as_deferred(impatient(), None))
    await asyncio.sleep(0.01)
    await turns()
    assert told.outcome == ["timeout"]


@in_loop
async def test_the_library_that_asks_how_far_a_task_is_gets_an_answer() -> None:
    states: list[str] = []

    async def asking() -> None:
        task = asyncio.current_task()
        assert task is not None
        states.append(getcoroutinestate(task.get_coro()))  # type: ignore[arg-type]
        await asyncio.sleep(0)

    told = Told(as_deferred(asking(), None))
    await turns()
    assert states == ["CORO_RUNNING"]
    assert told.outcome == [None]


def test_without_a_loop_a_coroutine_awaits_deferreds() -> None:
    waiting: Deferred[str] = Deferred()

    async def ask() -> str:
        return await waiting

    told = Told(as_deferred(ask(), None))
    waiting.callback("fine")
    assert told.outcome == ["fine"]


def test_what_cannot_be_waited_for_is_told_with_its_owner() -> None:
    with pytest.raises(TypeError, match="Wrong returned 7; return None"):
        as_deferred(7, type("Wrong", (), {})())


# To await what the server gives


@in_loop
async def test_a_task_and_a_coroutine_of_twisteds_await_the_same() -> None:
    sources: list[Deferred[str]] = [Deferred() for _ in range(3)]
    task, cancelled = (asyncio.ensure_future(_await(awaitable(found))) for found in sources[:2])

    async def within() -> None:
        results.append(await awaitable(sources[2]))

    async def nested() -> None:
        ensureDeferred(within())  # a coroutine that Twisted drives, within a step of a task

    results: list[str] = []
    await nested()
    await turns()
    cancelled.cancel()
    for source in sources[::2]:
        source.callback("there")
    assert await task == "there"
    assert results == ["there"]
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def _await(deferred: Deferred[str]) -> str:
    return await deferred


@in_loop
async def test_a_task_awaits_publish_on_a_bus_that_takes_its_time() -> None:
    bus = SlowBus()
    server = Server(bus=bus)
    client = server.connect()
    publishing = [
        asyncio.ensure_future(_await(publish("room", "news")))  # type: ignore[operator]
        for publish in (lhttp_tx.publish, server.engine.publish, client.session.publish)
    ]
    await turns()
    assert not any(task.done() for task in publishing)
    for waiting in bus.pending:
        waiting.callback(None)
    await asyncio.gather(*publishing)


# In everything that users write


async def asyncs_own(found: list[str], name: str) -> None:
    await asyncio.sleep(0)
    await succeed(None)
    found.append(name)


class Everything(Processor):
    command = "everything"

    def __init__(self, found: list[str]) -> None:
        self.found = found

    async def on_open(self, session: Session) -> None:
        await asyncs_own(self.found, "on_open")

    async def on_message(self, request: Request) -> None:
        await asyncs_own(self.found, "on_message")

    async def on_close(self, session: Session) -> None:
        await asyncs_own(self.found, "on_close")


class Filter(HeaderFilter):
    def __init__(self, found: list[str]) -> None:
        self.found = found

    async def on_connect(self, session: Session) -> None:
        await asyncs_own(self.found, "filter.on_connect")

    async def before(self, request: Request) -> None:
        await asyncs_own(self.found, "before")

    async def judge(self, request: Request) -> None:
        await asyncs_own(self.found, "judge")

    async def after(self, request: Request) -> None:
        await asyncs_own(self.found, "after")

    async def on_disconnect(self, session: Session) -> None:
        await asyncs_own(self.found, "filter.on_disconnect")


class Hooked(Hooks):
    def __init__(self, found: list[str]) -> None:
        self.found = found

    async def on_connect(self, session: Session) -> None:
        await asyncs_own(self.found, "on_connect")

    async def on_message(self, request: Request) -> None:
        await asyncs_own(self.found, "hooks.on_message")

    async def before_subscribe(self, session: Session, channel: str) -> None:
        await asyncs_own(self.found, "before_subscribe")

    async def before_delivery(self, session: Session, message: Message) -> bool:
        await asyncs_own(self.found, "before_delivery")
        return True

    async def on_subscribe(self, session: Session, channel: str) -> None:
        await asyncs_own(self.found, "on_subscribe")

    async def on_disconnect(self, session: Session) -> None:
        await asyncs_own(self.found, "on_disconnect")


@in_loop
async def test_processors_filters_and_hooks_await_what_asyncio_waits_for() -> None:
    found: list[str] = []
    server = Server(processors=[Everything(found)], filters=[Filter(found)], hooks=[Hooked(found)])
    client = server.connect()
    client.send("LHTTP/1.0 everything\r\nsubscribe:room\r\npublish:room\r\n\r\n")
    await turns(100)
    client.disconnect()
    await turns(100)
    assert server.engine.sessions == set()
    assert sorted(found) == sorted(
        [
            *("on_connect", "filter.on_connect", "hooks.on_message", "before", "before_subscribe", "judge"),
            *("on_open", "on_message", "on_subscribe", "before_delivery", "after"),
            *("on_close", "on_disconnect", "filter.on_disconnect"),
        ]
    )


class Patient(Authenticator):
    async def authenticate(self, attempt: LoginAttempt) -> Identity:
        await asyncio.sleep(0)
        return attempt.identify("jack")


@in_loop
async def test_an_authenticator_awaits_what_asyncio_waits_for() -> None:
    server = Server(authenticators=[Patient()])
    assert server.assembly.gate is not None
    told = Told(server.assembly.gate.admit(LoginAttempt("test", "1", "/", {}, {})))
    await turns()
    assert told.outcome[0].user == "jack"


@in_loop
async def test_a_time_limit_of_the_server_cancels_a_coroutine() -> None:
    ended: list[BaseException] = []

    @processor("slow")
    async def slow(request: Request) -> None:
        try:
            await asyncio.sleep(3600)
        except BaseException as error:
            ended.append(error)
            raise

    server = Server(processors=[slow], limits=Limits(processor_timeout=5))
    client: Client = server.connect()
    client.send(Message("slow"))
    await turns()
    server.clock.advance(6)
    await turns()
    assert client.take()[0].headers.get("reason") == "not done within 5 seconds"
    assert [type(error) for error in ended] == [asyncio.CancelledError]


@in_loop
async def test_a_processor_may_return_a_task() -> None:
    tasks: list[asyncio.Task[None]] = []

    @processor("task")
    def begin(request: Request) -> asyncio.Task[None]:
        async def answer() -> None:
            await asyncio.sleep(0)
            request.reply("done")

        tasks.append(asyncio.ensure_future(answer()))
        return tasks[0]

    client = Server(processors=[begin]).connect()
    client.send(Message("task"))
    client.send(Message("task"))
    assert len(tasks) == 1
    await turns()
    assert [message.text for message in client.take()] == ["done", "done"]
