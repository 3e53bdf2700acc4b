"""A real Chromium behind proxies that break WebSocket, and streams, too: chat goes on, nothing is lost or twice."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from integration._server import ServerProcess, http_request, message, wait_until
from integration.test_browser import BROWSER, DRIVER, PATIENCE, Tab, browser, tab

__all__ = ["browser", "tab"]

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromium-driver are not installed")

OPTIONS = ("--history", "room")


class Proxy:
    """
    Passes the bytes of connections on, and breaks some of them.

    :ivar blocks: whether handshakes of WebSockets are refused.
    :ivar cuts: seconds after which WebSockets are cut; 0: never.
    :ivar swallows: whether what comes back over WebSockets is held back, behind the handshake.
    :ivar buffers: whether streams are held back until they end.
    """

    def __init__(self, target: int) -> None:
        self.blocks = self.swallows = self.buffers = False
        self.cuts = 0.0
        self._target = target
        self._over = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._over:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            end, held, is_websocket, is_stream, size = float("inf"), b"", False, False, 0
            while not self._over and time.monotonic() < end:
                for ready in select.select([client, server], [], [], 0.05)[0]:
                    data = ready.recv(65_536)
                    if not data:
                        client.sendall(held)
                        return
                    if ready is server:
                        size += len(data)
                        if (is_stream and self.buffers) or (is_websocket and self.swallows and size > len(data)):
                            held += data
                        else:
                            client.sendall(data)
                        continue
                    if b"upgrade: websocket" in data.lower():
                        if self.blocks:
                            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                            return
                        is_websocket = True
                        end = time.monotonic() + self.cuts if self.cuts else end
                    is_stream = is_stream or (data.startswith(b"GET /connect?") and b"poll=1" not in data[:100])
                    server.sendall(data)

    def close(self) -> None:
        self._over = True
        self._listener.close()


@contextmanager
def proxy_of(server: ServerProcess) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    try:
        yield proxy
    finally:
        proxy.close()


MODULE = """
const [options, done] = [arguments[0], arguments[arguments.length - 1]];
import("/lhttp.mjs").then(({LhttpClient}) => start(LhttpClient), (error) => done(String(error)));
"""
SCRIPT = """
const [options, done] = [arguments[0], arguments[arguments.length - 1]];
const script = document.createElement("script");
script.src = "/lhttp.js";
script.onload = () => start(lhttp.LhttpClient);
document.head.append(script);
"""
START = """
function start(LhttpClient) {
  window.got = []; window.ways = []; window.failed = [];
  const client = window.client = new LhttpClient(location.origin, {comeBack: 1000, ...options});
  client.on("state", ({state}) => { if (state === "open") window.ways.push(client.transport); });
  client.subscribe("room", (message) => window.got.push(message.text));
  client.connect().then(() => done("open"), (error) => done(String(error)));
  let number = 0;
  window.timer = setInterval(() => {
    const text = `own ${number++}`;
    client.publish("room", text).catch((error) => window.failed.push(`${text}: ${error}`));
  }, 300);
}
"""


def begin(tab: Callable[[str], Tab], proxy: Proxy, options: dict[str, object], how: str = MODULE) -> Tab:
    """Open a page whose client chats through a proxy."""
    page = tab(f"http://127.0.0.1:{proxy.port}/lhttp.js")
    assert page.browser.execute_async_script(START + how, options) == "open"
    wait_for(page, "window.got.length > 0", "it has subscribed, and gets its own messages")
    return page


def wait_for(page: Tab, script: str, what: str) -> None:
    wait_until(lambda: page.browser.execute_script(f"return {script}"), what, 4 * PATIENCE)


def chat(page: Tab, server: ServerProcess, name: str, count: int = 5) -> None:
    """Publish to the page, and wait until it has that."""
    for number in range(count):
        body = f"{name} {number}"
        status, _, answer = http_request(server.port, "POST", "/publish", message("chat", {"publish": "room"}, body))
        assert status == 200, answer
    wait_for(page, f"window.got.includes('{name} {count - 1}')", f"{name} has come")


def check(page: Tab, *names: str, count: int = 5, is_late: bool = False) -> None:
    """
    Check that the page has got everything once, and in order: what it has published, and what others have.

    :param is_late: whether it may have published before it was subscribed.
    """
    page.browser.execute_script("clearInterval(window.timer)")
    wait_for(page, "window.client.state === 'open' && !window.client.queued", "all is sent")
    sent = page.browser.execute_async_script(
        "const done = arguments[0]; client.publish('room', 'last').then(() => done(true), (error) => done(`${error}`))"
    )
    assert sent is True
    wait_for(page, "window.got.includes('last')", "all has come")
    got = page.browser.execute_script("return window.got")
    assert page.browser.execute_script("return window.failed") == []
    own = [text for text in got if text.startswith("own ")]
    first = int(own[0].removeprefix("own ")) if is_late else 0
    assert own == [f"own {number}" for number in range(first, first + len(own))]
    for name in names:
        assert [text for text in got if text.startswith(f"{name} ")] == [f"{name} {number}" for number in range(count)]
    assert len(got) == len(set(got))


@pytest.mark.parametrize("how", [MODULE, SCRIPT], ids=["module", "script"])
def test_chat_goes_on_where_websocket_is_blocked_and_comes_back(
    serve: Callable[..., ServerProcess], tab: Callable[[str], Tab], how: str
) -> None:
    server = serve(*OPTIONS)
    with proxy_of(server) as proxy:
        proxy.blocks = True
        page = begin(tab, proxy, {}, how)
        wait_for(page, "window.client.transport === 'stream'", "it streams")
        chat(page, server, "stream")
        proxy.buffers = True
        chat_while = "window.client.transport === 'poll'"
        page.browser.execute_script("window.client.socket.close()")  # the stream is opened again, and held back
        wait_for(page, chat_while, "it polls")
        chat(page, server, "poll")
        proxy.blocks = proxy.buffers = False
        wait_for(page, "window.client.transport === 'websocket'", "it is back")
        chat(page, server, "websocket")
        check(page, "stream", "poll", "websocket")
        ways = page.browser.execute_script("return window.ways")
        assert [way for index, way in enumerate(ways) if way != ways[index - 1] or not index][-3:] == [
            *("stream", "poll", "websocket"),
        ]


def test_chat_goes_on_where_websockets_are_cut(serve: Callable[..., ServerProcess], tab: Callable[[str], Tab]) -> None:
    server = serve(*OPTIONS)
    with proxy_of(server) as proxy:
        proxy.cuts = 1.0
        page = begin(tab, proxy, {})
        wait_for(page, "window.client.transport === 'stream'", "it streams")
        chat(page, server, "stream")
        time.sleep(8)  # one that is tried is cut, too
        assert page.browser.execute_script("return window.client.transport") == "stream"
        proxy.cuts = 0.0
        wait_for(page, "window.client.transport === 'websocket'", "it is back")
        chat(page, server, "websocket")
        check(page, "stream", "websocket")


def test_chat_goes_on_where_everything_that_stays_open_is_held_back(
    serve: Callable[..., ServerProcess], tab: Callable[[str], Tab]
) -> None:
    server = serve(*OPTIONS)
    with proxy_of(server) as proxy:
        proxy.swallows = proxy.buffers = True
        page = begin(tab, proxy, {})
        wait_for(page, "window.client.transport === 'poll'", "it polls")
        wait_for(page, "window.got.length", "it is subscribed")  # before that, it knows no position to go on from
        chat(page, server, "poll")
        proxy.swallows = proxy.buffers = False
        wait_for(page, "window.client.transport === 'websocket'", "it is back")
        chat(page, server, "websocket")
        check(page, "poll", "websocket", is_late=True)


@pytest.mark.parametrize("transport", ["stream", "poll"])
def test_a_transport_may_be_forced(
    serve: Callable[..., ServerProcess], tab: Callable[[str], Tab], transport: str
) -> None:
    server = serve(*OPTIONS)
    with proxy_of(server) as proxy:
        page = begin(tab, proxy, {"transports": [transport]}, SCRIPT)
        chat(page, server, "forced", 50)
        check(page, "forced", count=50)
        assert page.browser.execute_script("return window.client.transport") == transport
        assert page.browser.execute_async_script("client.close().then(() => arguments[0](true))")
