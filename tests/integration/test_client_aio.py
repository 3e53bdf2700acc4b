"""The client's faces for asyncio and for programs without a loop, against a real server."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from integration._client import url_of
from integration._docs import environment, free_port
from integration._server import TIME_LIMIT, ServerProcess
from lhttp_tx.client import (
    ClientClosed,
    ConnectFailed,
    NoReply,
    Part,
    Published,
    ReplyError,
    RequestTimeout,
    State,
    aio,
    parts_of,
    sync,
)
from lhttp_tx.client.aio.loops import _lent
from lhttp_tx.client.aio.stream import Stream
from lhttp_tx.client.sync import stream as sync_stream
from lhttp_tx.client.sync.thread import LoopThread
from lhttp_tx.errors import LocalProtocolError, RemoteProtocolError

VALUES = ["text", b"\x00\xff", {"a": [1, None, "é"]}, [], 5, True, None]


def run(work: Any) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(3 * TIME_LIMIT):
            return await work

    return asyncio.run(limited())


@pytest.fixture
def url(server: ServerProcess) -> str:
    return url_of(server.port)


@pytest.mark.parametrize("codec", ["text", "json", "protobuf"])
def test_values_arrive_as_they_were_published(url: str, codec: str) -> None:
    async def main() -> list[Any]:
        async with aio.Client(url, codec=codec) as client:
            subscription = await client.subscribe("aio.values")
            for value in VALUES:
                await client.publish("aio.values", value)
            found = [await subscription.next() for _ in VALUES]
            await subscription.unsubscribe()
            assert subscription.closed
        return [
            message.json() if "content-type" in message.headers else message.body if message.binary else message.text
            for message in found
        ]

    assert run(main()) == VALUES


def test_requests_parts_errors_and_batches(url: str) -> None:
    async def main() -> None:
        progress: list[tuple[int, int]] = []
        async with aio.Client(url, command="say") as client:
            assert client.state is State.CONNECTED
            assert (await client.request("echo", {"a": 1})).json() == {"a": 1}
            with pytest.raises(NoReply):
                await client.request("nobody")
            with pytest.raises(ReplyError):
                await client.request("refuse")
            with pytest.raises(LocalProtocolError, match="not a value of JSON"):
                await client.publish("a", object())
            with pytest.raises(RemoteProtocolError):
                (await client.request("echo", "{")).json()
            reply = await client.upload(
                "parts", [Part(body=b"x" * 40_000)], on_progress=lambda *at: progress.append(at)
            )
            assert b"x" * 40_000 in reply.body and progress[-1][0] == progress[-1][1]
            receipt = await client.send("x", headers={"subscribe": "aio.batch"})
            assert receipt is not None and receipt.command == "receipt"
            assert await client.send("x", receipt=False) is None
            heard: list[tuple[str, str, str]] = []
            await client.subscribe(
                "aio.b", lambda message, channel: heard.append((message.command, channel, message.text))
            )
            results = await client.batch([("aio.b", 1), ("$no", 2), (["aio.b"], 3)])
            assert [type(result) for result in results] == [Published, RemoteProtocolError, Published]
            assert heard == [("say", "aio.b", "1"), ("say", "aio.b", "3")]
            assert (await client.publish("a", parts=[Part(body=b"1")], id="mine")).message_id == "mine"
        assert client.state is State.IDLE
        with pytest.raises(ClientClosed):
            await client.publish("a")

    run(main())


def test_no_reactor_runs_and_nothing_is_left(url: str) -> None:
    program = """
import asyncio, sys, threading
from lhttp_tx.client.aio import Client

async def main():
    for _ in range(2):
        async with Client(sys.argv[1]) as client, Client(sys.argv[1]) as other:
            print((await client.request("echo", "hi")).text, (await other.request("echo", "ho")).text)

asyncio.run(main(), debug=True)
asyncio.run(main())
from twisted.internet import reactor
print(reactor.running, threading.active_count())
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, url],
        env=environment(), capture_output=True, text=True, timeout=3 * TIME_LIMIT, check=False,
    )  # fmt: skip
    assert (done.stdout.splitlines()[-1], done.returncode) == ("False 1", 0), done.stderr
    assert done.stdout.count("hi ho") == 4


def test_waiting_may_be_cancelled_and_loses_nothing(url: str) -> None:
    async def main() -> None:
        async with aio.Client(url) as client:
            subscription = await client.subscribe("aio.cancel")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await subscription.next()
            await client.publish("aio.cancel", "x")
            assert (await subscription.next()).text == "x"
            waiting = asyncio.create_task(subscription.next())
            await asyncio.sleep(0)
        with pytest.raises(ClientClosed):
            await waiting
        assert [message async for message in subscription] == []

    run(main())


def test_a_time_limit_that_ends_when_a_message_comes_loses_nothing(url: str) -> None:
    count = 500

    async def main() -> list[str]:
        found: list[str] = []
        async with aio.Client(url) as client:
            subscription = await client.subscribe("aio.limits")
            for number in range(count):
                sent = asyncio.create_task(client.publish("aio.limits", str(number)))
                while not sent.done() or len(found) <= number:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.0002):
                            found.append((await subscription.next()).text)
                await sent
        return found

    assert run(main()) == [str(number) for number in range(count)]


class OneItem:
    """A source of one item, and where it goes back to."""

    def __init__(self) -> None:
        self.item: Deferred[str] = Deferred()
        self.back: list[str] = []

    def next(self) -> Deferred[str]:
        return self.item

    def put_back(self, item: str) -> None:
        self.back.append(item)


def test_an_item_that_comes_in_the_moment_of_a_cancellation_goes_back() -> None:
    async def main() -> list[str]:
        source = OneItem()
        taking = asyncio.create_task(Stream(source, asyncio.get_running_loop()).next())
        await asyncio.sleep(0)
        source.item.callback("one")
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        return source.back

    assert run(main()) == ["one"]


@pytest.mark.parametrize("is_done", [False, True])
def test_an_item_on_its_way_to_a_thread_that_is_interrupted_goes_back(is_done: bool) -> None:
    """Ctrl-C may come when the client's thread has taken the item, or just before."""
    source = OneItem()
    loop = asyncio.new_event_loop()
    tasks: list[asyncio.Task[str]] = []

    def work(coroutine: Any) -> Any:
        if tasks:
            return loop.run_until_complete(coroutine)
        tasks.append(loop.create_task(coroutine))
        loop.run_until_complete(asyncio.sleep(0))
        if is_done:
            source.item.callback("one")
            loop.run_until_complete(tasks[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync_stream.Stream(Stream(source, loop), work).next()
    if not is_done:
        source.item.callback("one")
        with pytest.raises(ClientClosed):
            loop.run_until_complete(tasks[0])
    loop.close()
    assert source.back == ["one"]


def test_a_server_that_is_not_there_leaves_nothing_behind() -> None:
    async def main() -> None:
        client = aio.Client(url_of(free_port()))
        with pytest.raises(ConnectFailed):
            await client.connect()
        nameless = aio.Client("ws://no.such.host.invalid/")
        with pytest.raises(ConnectFailed):
            await nameless.connect()
        assert not _lent

    run(main())
    gc.collect()


def test_a_coroutine_logs_in_and_tls_needs_no_reactor(
    serve: Callable[..., ServerProcess], certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    key, chain = certificate
    (tmp_path / "passwords").write_text("jack:secret\n", "utf-8")
    port = free_port()
    serve("--listen", f"ssl:{port}:privateKey={key}:certKey={chain}:interface=127.0.0.1", "--auth", "file:passwords")

    async def login() -> dict[str, str]:
        await asyncio.sleep(0)
        return {"user": "jack", "password": "secret"}

    async def main() -> None:
        trusted = trustRootFromCertificates([Certificate.loadPEM(chain.read_bytes())])
        tls = optionsForClientTLS("127.0.0.1", trustRoot=trusted)
        options = {"tls": tls, "headers": {"Authorization": "Basic amFjazpzZWNyZXQ="}}
        async with aio.Client(f"wss://127.0.0.1:{port}/", login=login, **options) as client:
            assert client.user == "jack"
            await client.publish("a", "x" * 50_000)

    run(main())


def test_wrong_uses_are_told(url: str) -> None:
    async def listener(message: object, channel: str) -> None:
        raise AssertionError

    async def main() -> None:
        client = aio.Client(url)
        with pytest.raises(TypeError):
            await aio.Client(url, colour="red").connect()
        async with client:
            with pytest.raises(TypeError, match="async for"):
                await client.subscribe("a", listener)
            with pytest.raises(RuntimeError, match="belongs to the loop"):
                await asyncio.to_thread(asyncio.run, client.connect())

    run(main())
    with pytest.raises(ValueError, match="wss://"):
        aio.Client("tls:localhost:443")


def test_calls_before_connect_wait_for_the_connection(url: str) -> None:
    async def main() -> list[Any]:
        client = aio.Client(url)
        assert client.position("aio.early") is None
        found: list[Any] = []
        subscribing = asyncio.create_task(client.subscribe("aio.early", lambda message: found.append(message.text)))
        publishing = asyncio.create_task(client.publish("aio.early", "hello"))
        following = asyncio.create_task(client.presence("aio.early"))
        await asyncio.sleep(0)
        assert client.state is State.IDLE
        await client.connect()
        assert (await subscribing).channel == "aio.early"
        await publishing
        with pytest.raises(ReplyError):
            await following
        await client.close()
        return found

    assert run(main()) == ["hello"]
    assert not _lent


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux tells the descriptors of a process")
def test_closed_clients_leave_no_descriptor_and_no_timer_whenever_they_are_cancelled(url: str) -> None:
    async def live(client: aio.Client) -> None:
        await client.connect()
        subscription = await client.subscribe("aio.left")
        await client.publish("aio.left", "1")
        await subscription.next()

    def left() -> tuple[int, int]:
        loop: Any = asyncio.get_running_loop()
        timers = [each for each in loop._scheduled if not each.cancelled() and "_onTimer" in repr(each)]
        return len(list(Path("/proc/self/fd").iterdir())), len(timers)

    async def main() -> None:
        async with aio.Client(url):
            pass
        before = left()
        for turns in range(40):
            client = aio.Client(url)
            living = asyncio.create_task(live(client))
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            living.cancel()
            with suppress(asyncio.CancelledError):
                await living
            await client.close()
            assert left() == before, turns

    run(main())


def test_an_attempt_that_another_task_has_ended_leaves_the_next_one_alone(url: str) -> None:
    async def main() -> None:
        client = aio.Client(url)
        first = asyncio.create_task(client.connect())
        await asyncio.sleep(0)
        closing = asyncio.create_task(client.close())
        second = asyncio.create_task(client.connect())
        with pytest.raises(ClientClosed):
            await first
        await asyncio.gather(closing, second)
        assert client.state is State.CONNECTED
        await client.close()

    run(main())


def test_an_attempt_that_another_thread_has_ended_leaves_the_next_one_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, again = threading.Event(), threading.Event()
    run_in_thread = LoopThread.run

    def told_late(self: LoopThread, work: Any) -> Any:
        try:
            return run_in_thread(self, work)
        except ClientClosed:
            assert again.wait(TIME_LIMIT)
            raise

    async def headers() -> dict[str, str]:
        if not begun.is_set():
            begun.set()
            await asyncio.sleep(1_000)
        return {"X-Attempt": "again"}

    def first() -> None:
        with suppress(ClientClosed):
            client.connect()

    monkeypatch.setattr(LoopThread, "run", told_late)
    client = sync.Client(url, headers=headers)
    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(TIME_LIMIT)
    client.close()
    client.connect()
    again.set()
    thread.join(TIME_LIMIT)
    client.publish("aio.again", "1")
    client.close()
    assert not _lent


def test_a_call_without_a_connection_ends_and_says_what_to_do(url: str) -> None:
    async def main() -> None:
        client = aio.Client(url, timeout=0.05)
        with pytest.raises(RequestTimeout, match=r"not started, so call connect\(\)"):
            await client.subscribe("aio.never")
        await client.close()
        with pytest.raises(ClientClosed, match=r"call connect\(\) to use it again"):
            await client.subscribe("aio.never")
        with pytest.raises(ClientClosed):
            client.position("aio.never")

    run(main())
    assert not _lent


def test_callbacks_may_be_coroutine_functions_that_await_the_client(url: str) -> None:
    """They must get through what only asyncio can wait for: its own futures, and the calls of this client."""

    async def main() -> None:
        told: dict[str, asyncio.Future[Any]] = {}
        loop = asyncio.get_running_loop()

        def told_later(name: str) -> Callable[..., Any]:
            told[name] = loop.create_future()

            async def callback(*arguments: Any) -> None:
                await asyncio.sleep(0)
                if not told[name].done():
                    result = None if name == "state" else await client.publish("aio.told", name)
                    told[name].set_result((result, *arguments))

            return callback

        client = aio.Client(
            url,
            on_state=told_later("state"),
            on_error=told_later("error"),
            on_message=told_later("message"),
            on_missed=told_later("missed"),
        )
        async with client:
            await client.send("refuse", receipt=False)
            await client.send("echo", "for nobody", receipt=False)
            assert (await told["state"])[1] is State.CONNECTING
            assert isinstance((await told["error"])[1], ReplyError)
            assert (await told["message"])[1].text == "for nobody"
            await client.subscribe("aio.missed", since="gone-5")
            assert (await told["missed"])[1:] == ("aio.missed", None)

    run(main())


# Without a loop


def test_a_listener_takes_the_message_alone_or_with_its_channel(url: str) -> None:
    async def main() -> list[Any]:
        found: list[Any] = []
        async with aio.Client(url) as client:
            await client.subscribe("aio.one", lambda message: found.append(message.text))
            await client.subscribe("aio.two", lambda message, channel: found.append((message.text, channel)))
            await client.subscribe("aio.any", lambda *taken: found.append(len(taken)))
            with pytest.raises(TypeError, match="cannot take that"):
                await client.subscribe("aio.none", lambda: None)  # type: ignore[arg-type, misc]
            for name in ("one", "two", "any"):
                await client.publish(f"aio.{name}", name)
        return found

    assert run(main()) == ["one", ("two", "aio.two"), 2]


def test_calls_wait(url: str) -> None:
    with sync.Client(url) as client:
        subscription = client.subscribe("sync.a")
        assert client.publish("sync.a", {"n": 1}).message_id
        assert next(subscription).json() == {"n": 1}
        with pytest.raises(TimeoutError, match=r"nothing has come within 0\.01 seconds"):
            subscription.next(timeout=0.01)
        assert client.request("echo", b"\xff").body == b"\xff"
        reply = client.upload("parts", [Part(body=b"1")])
        assert "1" in reply.text and parts_of(reply) == ()
        assert [type(one) for one in client.batch([("sync.a", 1), ("$no", 2)])] == [Published, RemoteProtocolError]
        assert client.send("x") is not None
        assert client.position("sync.a") is None
        with pytest.raises(ReplyError):
            client.history("sync.a")
        subscription.unsubscribe()
        assert [message.text for message in subscription] == ["1"]
    with pytest.raises(ClientClosed):
        client.publish("a")


def test_threads_share_a_client_and_closing_it_ends_those_who_wait(url: str) -> None:
    client = sync.Client(url)
    client.connect()
    subscription = client.subscribe("sync.threads")
    told: list[object] = []
    waiting = threading.Thread(target=lambda: told.extend(subscription))
    waiting.start()
    publishing = [threading.Thread(target=client.publish, args=("sync.threads", str(n))) for n in range(8)]
    for thread in publishing:
        thread.start()
    for thread in publishing:
        thread.join()
    client.request("echo")
    client.close()
    waiting.join(TIME_LIMIT)
    assert not waiting.is_alive()
    assert len(told) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_client_made_before_a_fork_says_so(url: str) -> None:
    program = """
import os, sys
from lhttp_tx.client import ClientClosed
from lhttp_tx.client.sync import Client

client = Client(sys.argv[1])
client.connect()
child = os.fork()
if child == 0:
    try:
        client.publish("a", "x")
    except ClientClosed as error:
        print(error.reason, flush=True)
    os._exit(0)
os.waitpid(child, 0)
client.publish("a", "x")
client.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, url],
        env=environment(), capture_output=True, text=True, timeout=3 * TIME_LIMIT, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("the client was made before a fork: make one in each process\n", 0)


def test_a_server_that_is_not_there_is_an_error(url: str) -> None:
    before = threading.active_count()
    with pytest.raises(ConnectFailed):
        sync.Client(url_of(free_port())).connect()
    assert threading.active_count() == before
    assert multiprocessing.active_children() == []
