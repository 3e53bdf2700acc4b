"""The presence of the Python client, with each of its faces, against a real server that is killed and started again."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration._client import PROLOGUE, url_of
from integration._docs import Process, free_port
from integration._server import TIME_LIMIT, RawClient, ServerProcess, wait_until
from lhttp_tx.client import ClientClosed, PresenceChange, ReplyError, RequestTimeout, aio, sync

OPTIONS = ("--presence", "room.*", "--presence-grace", "0", "--login-parameter", "user")

TELLING = """
import sys
from pathlib import Path

def gate():
    if Path("shut").exists():
        raise OSError("the test lets nobody in")
    return {"x-test": "1"}

def show(*words):
    print(*words, flush=True)

CLIENT = {"retry_policy": lambda attempt: 0.1, "headers": gate}
PRESENCE = {
    "on_join": lambda user, connection: show("join", user),
    "on_leave": lambda user, connection: show("leave", user),
    "on_sync": lambda presence: show("sync", *presence.users),
    "on_change": lambda presence: show("change", presence.count, presence.connections, presence.complete),
    "on_end": lambda error: show("end", error),
}
"""

FACES = {
    "twisted": PROLOGUE
    + TELLING
    + """
async def main(reactor, url):
    client = Client(url, reactor=reactor, **CLIENT)
    await client.connect()
    try:
        await client.presence("other")
    except ReplyError as error:
        show("refused", error.status)
    presence = await client.presence("room.a", **PRESENCE)
    async for change in presence:
        if change.user == "last":
            await presence.close()
    show(*presence.users, presence.closed)
    await client.close()

react(main, sys.argv[1:])
""",
    "aio": TELLING
    + """
import asyncio
from lhttp_tx.client import ReplyError
from lhttp_tx.client.aio import Client

async def main(url):
    async with Client(url, **CLIENT) as client:
        try:
            await client.presence("other")
        except ReplyError as error:
            show("refused", error.status)
        presence = await client.presence("room.a", **PRESENCE)
        async for change in presence:
            if change.user == "last":
                await presence.close()
        show(*presence.users, presence.closed)

asyncio.run(main(*sys.argv[1:]))
""",
    "sync": TELLING
    + """
from lhttp_tx.client import ReplyError
from lhttp_tx.client.sync import Client

with Client(*sys.argv[1:], **CLIENT) as client:
    try:
        client.presence("other")
    except ReplyError as error:
        show("refused", error.status)
    presence = client.presence("room.a", **PRESENCE)
    for change in presence:
        if change.user == "last":
            presence.close()
    show(*presence.users, presence.closed)
""",
}
"""Programs that tell what they see until the user "last" joins."""


@pytest.fixture
def come() -> Iterator[Callable[[int, str], RawClient]]:
    clients: list[RawClient] = []

    def come(port: int, user: str) -> RawClient:
        clients.append(RawClient(port, f"/?user={user}"))
        clients[-1].subscribe("room.a")
        return clients[-1]

    yield come
    for client in clients:
        client.close()


Come = Callable[[int, str], RawClient]


@pytest.mark.parametrize("face", FACES)
def test_it_is_right_when_the_server_is_killed_and_started_again(
    serve: Callable[..., ServerProcess], come: Come, tmp_path: Path, face: str
) -> None:
    port = free_port()
    listen = ("--port", f"tcp:{port}:interface=127.0.0.1")
    first = serve(*OPTIONS, listen=listen)
    alice = come(port, "alice")
    come(port, "carol")
    with Process([sys.executable, "-W", "error", "-c", FACES[face], url_of(port)], tmp_path) as program:
        program.wait_for_output("change 2 2 True\n")
        come(port, "bob")
        program.wait_for_output("change 3 3 True\n")
        alice.close()
        program.wait_for_output("leave alice\nchange 2 2 True\n")
        (tmp_path / "shut").touch()
        first.crash()
        serve(*OPTIONS, listen=listen)
        come(port, "bob")
        come(port, "dave")
        (tmp_path / "shut").unlink()
        program.wait_for_output("sync bob dave\nchange 2 2 True\n")
        come(port, "last")
        assert program.wait() == 0
        assert program.output.splitlines() == [
            "refused 404",
            "sync alice carol",
            "change 2 2 True",
            "join bob",
            "change 3 3 True",
            "leave alice",
            "change 2 2 True",
            "leave carol",
            "join dave",
            "sync bob dave",
            "change 2 2 True",
            "join last",
            "change 3 3 True",
            "end None",
            "bob dave last True",
        ]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    server = ServerProcess(*OPTIONS, cwd=tmp_path_factory.mktemp("server"))
    yield server.port
    server.check()


def run(work: Any) -> None:
    async def limited() -> None:
        async with asyncio.timeout(3 * TIME_LIMIT):
            await work

    asyncio.run(limited())


def test_waiting_may_be_cancelled(port: int, come: Come) -> None:
    async def main() -> None:
        async with aio.Client(url_of(port)) as client:
            presence = await client.presence("room.a")
            assert await presence.next() == PresenceChange("sync")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await presence.next()
            await asyncio.to_thread(come, port, "alice")
            change = await presence.next()
            assert (change.event, change.user, presence.has("alice")) == ("join", "alice", True)
            assert repr(presence) == "<aio.Presence room.a>"
            waiting = asyncio.create_task(presence.next())
            await asyncio.sleep(0)
        with pytest.raises(ClientClosed):
            await waiting
        assert presence.closed

    run(main())


def test_callers_are_told_what_went_wrong(port: int) -> None:
    async def callback(presence: object) -> None:
        raise AssertionError

    async def main() -> None:
        async with aio.Client(url_of(port)) as client:
            with pytest.raises(TypeError, match="async for"):
                await client.presence("room.a", on_change=callback)
            for name in ("on_join", "on_leave", "on_sync", "on_change", "on_end"):
                with pytest.raises(TypeError, match=f"{name} is called with"):
                    await client.presence("room.a", **{name: lambda: None})  # type: ignore[arg-type]
            ended: list[object] = []
            with pytest.raises(RequestTimeout):
                await client.presence("room.a", timeout=0, on_end=ended.append)
            assert ended == [None]
            with pytest.raises(ReplyError):
                await client.presence("other")
        with pytest.raises(ClientClosed):
            await client.presence("room.a")

    run(main())


def test_a_server_that_keeps_no_presence_refuses(server: ServerProcess) -> None:
    with sync.Client(url_of(server.port)) as client, pytest.raises(ReplyError) as caught:
        client.presence("room.a")
    assert caught.value.status == 403


def test_a_client_without_a_loop_checks_the_callbacks_at_once(port: int) -> None:
    with sync.Client(url_of(port)) as client:
        for name in ("on_join", "on_leave", "on_sync", "on_change", "on_end"):
            with pytest.raises(TypeError, match=f"{name} is called with"):
                client.presence("room.a", **{name: lambda: None})  # type: ignore[arg-type]


def test_threads_share_a_presence_and_closing_the_client_ends_it(port: int, come: Come) -> None:
    client = sync.Client(url_of(port))
    client.connect()
    shown: list[object] = []
    in_callback: list[list[str]] = []
    presence = client.presence(
        "room.a",
        on_change=lambda changed: (shown.append(changed), in_callback.append(changed.users)),
    )
    assert presence.next() == PresenceChange("sync")
    with pytest.raises(TimeoutError):
        presence.next(timeout=0.01)
    told: list[PresenceChange] = []
    waiting = threading.Thread(target=lambda: told.extend(presence))
    waiting.start()
    come(port, "alice")
    wait_until(lambda: told, "alice has joined")
    client.close()
    waiting.join(TIME_LIMIT)
    assert not waiting.is_alive()
    assert [change.user for change in told] == ["alice"]
    assert in_callback == [[], ["alice"]]
    assert all(each is presence for each in shown)
    assert (presence.users, presence.closed, repr(presence)) == (["alice"], True, "<sync.Presence room.a>")
