"""The Python client behind proxies that break WebSocket, and streams, too: chat goes on, nothing is lost or twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration._client import run_program, url_of
from integration._proxy import Proxy, proxy_of
from integration._server import TIME_LIMIT, ServerProcess, http_request, message, wait_until
from lhttp_tx.client import ConnectFailed, LoginFailed, Part, ReplyError, aio, sync

PATIENCE = 4 * TIME_LIMIT


class Chat:
    """A client that publishes all the time, and what others have published to it."""

    def __init__(self, server: ServerProcess, proxy: Proxy, room: str) -> None:
        self.client = aio.Client(f"ws://127.0.0.1:{proxy.port}/", come_back=1.0, on_state=self._changed)
        self.ways: list[str | None] = []
        self.got: list[str] = []
        self._server = server
        self._room = room
        self._wanted: list[str] = []
        self._own = 0

    def _changed(self, *_: object) -> None:
        asyncio.get_running_loop().call_soon(self._note)

    def _note(self) -> None:
        if self.client.transport and self.ways[-1:] != [self.client.transport]:
            self.ways.append(self.client.transport)

    async def begin(self) -> None:
        await self.client.connect()
        await self.client.subscribe(self._room, lambda message, _: self.got.append(message.text))
        self._publishing = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        while True:
            await self.client.publish(self._room, f"own {self._own}", timeout=PATIENCE)
            self._own += 1
            await asyncio.sleep(0.3)

    async def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never: {what}; {self.ways}, {self.got}") from None

    async def chat_over(self, transport: str) -> None:
        """Wait until the client uses *transport*, publish to it, and wait until it has that."""
        await self.wait_for(lambda: self.client.transport == transport, transport)
        bodies = [f"{transport} {number}" for number in range(5)]
        self._wanted += bodies
        for body in bodies:
            raw = message("chat", {"publish": self._room}, body)
            status, _, answer = await asyncio.to_thread(http_request, self._server.port, "POST", "/publish", raw)
            assert status == 200, answer
        await self.wait_for(lambda: bodies[-1] in self.got, bodies[-1])

    async def end(self) -> None:
        """Check that everything has come once, and in order."""
        self._publishing.cancel()
        await asyncio.wait([self._publishing])
        await self.client.publish(self._room, "last", timeout=PATIENCE)
        await self.wait_for(lambda: "last" in self.got, "last")
        own = [text for text in self.got if text.startswith("own ")]
        assert own in ([f"own {number}" for number in range(count)] for count in (self._own, self._own + 1))
        assert [text for text in self.got if not text.startswith("own ")] == [*self._wanted, "last"]
        await self.client.close()


async def where_websocket_is_blocked(server: ServerProcess, proxy: Proxy) -> list[str | None]:
    proxy.blocks = True
    chat = Chat(server, proxy, "room.blocked")
    await chat.begin()
    await chat.chat_over("stream")
    proxy.buffers = True
    inside: Any = chat.client._made
    inside._uplink.link.transport.abort()  # the stream is opened again, and held back
    await chat.chat_over("poll")
    proxy.blocks = proxy.buffers = False
    await chat.chat_over("websocket")
    await chat.end()
    return chat.ways


async def where_websockets_are_cut(server: ServerProcess, proxy: Proxy) -> list[str | None]:
    proxy.cuts = 1.0
    chat = Chat(server, proxy, "room.cut")
    await chat.begin()
    await chat.chat_over("stream")
    cut = proxy.cut  # WebSockets that are tried beside the stream are cut, too
    await chat.wait_for(lambda: proxy.cut >= cut + 2, "two are tried")
    assert chat.ways == ["websocket", "stream"]
    proxy.cuts = 0.0
    await chat.chat_over("websocket")
    await chat.end()
    return chat.ways


async def where_all_that_stays_open_is_held_back(server: ServerProcess, proxy: Proxy) -> list[str | None]:
    proxy.swallows = proxy.buffers = True
    chat = Chat(server, proxy, "room.held")
    await chat.begin()
    await chat.chat_over("poll")
    proxy.swallows = proxy.buffers = False
    await chat.chat_over("websocket")
    await chat.end()
    return chat.ways


def test_chat_goes_on_behind_every_proxy_and_comes_back(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--history", "room.*")
    cases = (where_websocket_is_blocked, where_websockets_are_cut, where_all_that_stays_open_is_held_back)

    async def main() -> list[list[str | None]]:
        with proxy_of(server) as one, proxy_of(server) as two, proxy_of(server) as three:
            return await asyncio.gather(
                *(case(server, proxy) for case, proxy in zip(cases, (one, two, three), strict=True))
            )

    blocked, cut, held = asyncio.run(main())
    assert blocked == ["stream", "poll", "websocket"]
    assert cut == ["websocket", "stream", "websocket"]
    assert held == ["websocket", "poll", "websocket"]


@pytest.mark.parametrize("transport", ["stream", "poll"])
def test_a_client_over_http_can_do_everything(server: ServerProcess, transport: str) -> None:
    with sync.Client(url_of(server.port), transports=[transport], codec="protobuf") as client:
        assert client.transport == transport
        room = client.subscribe(f"room.{transport}")
        bodies = ["text ä\u2028", b"\x00\xff", "x" * 65_000]
        for body in bodies:
            client.publish(room.channel, body)
        found = [room.next(PATIENCE) for _ in bodies]
        assert [message.body if message.binary else message.text for message in found] == bodies
        with pytest.raises(ReplyError) as caught:
            client.publish(room.channel, "x" * 200_000)
        assert caught.value.status == 413
        reply = client.request("echo", "hello")
        assert reply.text == "hello"
        told: list[tuple[int, int]] = []
        parts = [Part(body=b"p" * 60_000), Part(body=b"q")]
        client.upload("parts", parts, on_progress=lambda sent, size: told.append((sent, size)))
        wait_until(lambda: [sent == size for sent, size in told] == [True], "all is sent")  # perhaps behind the reply
    assert client.transport is None


def test_a_client_over_http_logs_in(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ada:secret\n", encoding="utf-8")
    (tmp_path / "users").chmod(0o600)
    server = serve("--auth", f"file:{tmp_path}/users", "--login-timeout", "30")
    options: dict[str, Any] = {"transports": ["poll"]}
    for given in (
        {"login": lambda: {"user": "ada", "password": "secret"}},
        {"headers": {"Authorization": "Basic YWRhOnNlY3JldA=="}},
        {"headers": lambda: {"Authorization": "Basic YWRhOnNlY3JldA=="}},
    ):
        with sync.Client(url_of(server.port), **options, **given) as client:
            client.publish("room", "hello")
    for wrong in (
        {"login": lambda: {"user": "ada", "password": "wrong"}},
        {"headers": {"Authorization": "Basic YWRhOndyb25n"}},
    ):
        with pytest.raises(LoginFailed) as caught, sync.Client(url_of(server.port), **options, **wrong):
            pass
        assert caught.value.status == 401


def test_a_server_without_sessions_is_told_as_what_it_is(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--no-events")
    with pytest.raises(ConnectFailed, match="the server refuses a session: 426"):
        sync.Client(url_of(server.port), transports=["stream"]).connect()


def test_a_twisted_program_goes_on_over_http(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--history", "room.*")
    program = """
async def main(reactor, url):
    client = Client(url, reactor=reactor)
    await client.connect()
    got = []
    await client.subscribe("room.a", lambda message: got.append(message.text))
    await client.publish("room.a", "chat", body="hello")
    print(client.transport, got)
    await client.close()
    print(client.transport, reactor.getDelayedCalls())
"""
    with proxy_of(server) as proxy:
        proxy.blocks = True
        assert run_program(program, f"ws://127.0.0.1:{proxy.port}/") == ["stream ['hello']", "None []"]
