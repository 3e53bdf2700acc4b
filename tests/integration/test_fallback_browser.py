"""
A real Chromium and a real Firefox behind proxies that break WebSocket, and streams, too: chat goes on, nothing is lost
or twice.

Most of the time goes into waiting for clocks of the client, so each test has a page in every browser at the same time.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from integration._firefox import FIREFOX, FirefoxTab
from integration._proxy import Proxy, proxy_of
from integration._server import ServerProcess, http_request, message, wait_until
from integration.test_browser import BROWSER, DRIVER, PATIENCE, Tab, browser, everywhere, tab

__all__ = ["browser", "everywhere", "tab"]

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER) and FIREFOX is None, reason="no browser is installed")

Everywhere = Callable[[str], list[Tab | FirefoxTab]]

OPTIONS = ("--history", "room.*")

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
  const {room, ...given} = options;
  window.got = []; window.ways = []; window.failed = [];
  const client = window.client = new LhttpClient(location.origin, given);
  client.on("state", ({state}) => { if (state === "open") window.ways.push(client.transport); });
  client.subscribe(room, (message) => window.got.push(message.text));
  client.connect().then(() => done("open"), (error) => done(String(error)));
  let number = 0;
  window.timer = setInterval(() => {
    const text = `own ${number++}`;
    client.publish(room, text).catch((error) => window.failed.push(`${text}: ${error}`));
  }, 300);
}
"""


class Page:
    """The page of a browser, whose client chats in a room of its own through a proxy."""

    def __init__(self, opened: Tab | FirefoxTab, server: ServerProcess, options: dict[str, object], how: str) -> None:
        self.name = opened.name
        self.tab = opened
        self._server = server
        self._room = f"room.{self.name}"
        self._names: list[str] = []
        assert self.tab.browser.execute_async_script(START + how, {**options, "room": self._room}) == "open", self.name

    def get(self, script: str) -> object:
        """Return the value of an expression."""
        return self.tab.browser.execute_script(f"return {script}")

    def wait_for(self, script: str, what: str) -> None:
        """Return when an expression is true."""
        wait_until(lambda: self.get(script), f"{what} in {self.name}", 4 * PATIENCE)

    def wait_for_transport(self, transport: str) -> None:
        """Return when the client uses *transport*."""
        self.wait_for(f"window.client.transport === '{transport}'", f"it uses {transport}")

    def chat(self, name: str, count: int = 5) -> None:
        """Publish to the page, and wait until it has that."""
        self._names += [f"{name} {number}" for number in range(count)]
        for body in self._names[-count:]:
            raw = message("chat", {"publish": self._room}, body)
            status, _, answer = http_request(self._server.port, "POST", "/publish", raw)
            assert status == 200, answer
        self.wait_for(f"window.got.includes('{self._names[-1]}')", f"{name} has come")

    def check(self, *, is_late: bool = False) -> None:
        """
        Check that the page has got everything once, and in order: what it has published, and what others have.

        :param is_late: whether it may have published before it was subscribed.
        """
        self.tab.browser.execute_script("clearInterval(window.timer)")
        self.wait_for("window.client.state === 'open' && !window.client.queued", "all is sent")
        publish = "client.publish(arguments[0], 'last').then(() => done(true), (error) => done(`${error}`))"
        assert self.tab.browser.execute_async_script(f"const done = arguments[1]; {publish}", self._room) is True
        self.wait_for("window.got.includes('last')", "all has come")
        got = self.tab.browser.execute_script("return window.got")
        assert self.get("window.failed") == [], self.name
        own = [text for text in got if text.startswith("own ")]
        first = int(own[0].removeprefix("own ")) if is_late else 0
        assert own == [f"own {number}" for number in range(first, first + len(own))], self.name
        assert [text for text in got if not text.startswith("own ")] == [*self._names, "last"], self.name


def begin(
    everywhere: Everywhere, server: ServerProcess, proxy: Proxy, options: dict[str, object], how: str
) -> list[Page]:
    """Open a page in each browser, and return them when they get their own messages."""
    tabs = everywhere(f"http://127.0.0.1:{proxy.port}/lhttp.js")
    pages = [Page(opened, server, {"comeBack": 1000, **options}, how) for opened in tabs]
    for page in pages:
        page.wait_for("window.got.length > 0", "it has subscribed, and gets its own messages")
    return pages


def test_chat_goes_on_where_websocket_is_blocked_and_comes_back(
    serve: Callable[..., ServerProcess], everywhere: Everywhere
) -> None:
    server = serve(*OPTIONS)
    with proxy_of(server) as proxy:
        proxy.blocks = True
        pages = begin(everywhere, server, proxy, {}, MODULE)
        for page in pages:
            page.wait_for_transport("stream")
            page.chat("stream")
        proxy.buffers = True
        for page in pages:
            page.tab.browser.execute_script("window.client.socket.close()")  # a stream is opened again, and held back
        for page in pages:
            page.wait_for_transport("poll")
            page.chat("poll")
        proxy.blocks = proxy.buffers = False
        for page in pages:
            page.wait_for_transport("websocket")
            page.chat("websocket")
            page.check()
            ways = page.tab.browser.execute_script("return window.ways")
            assert [way for index, way in enumerate(ways) if way != ways[index - 1] or not index][-3:] == [
                *("stream", "poll", "websocket"),
            ]


def test_chat_goes_on_where_websockets_are_cut(serve: Callable[..., ServerProcess], everywhere: Everywhere) -> None:
    server = serve(*OPTIONS)
    with proxy_of(server) as proxy:
        proxy.cuts = 1.0
        pages = begin(everywhere, server, proxy, {}, SCRIPT)
        for page in pages:
            page.wait_for_transport("stream")
            page.chat("stream")
        cut = proxy.cut  # WebSockets that are tried beside the streams are cut, too
        wait_until(lambda: proxy.cut >= cut + 2 * len(pages), "WebSockets are tried", 4 * PATIENCE)
        assert [page.get("window.ways.slice(window.ways.indexOf('stream'))") for page in pages] == [["stream"]] * len(
            pages
        )
        proxy.cuts = 0.0
        for page in pages:
            page.wait_for_transport("websocket")
            page.chat("websocket")
            page.check()


def test_chat_goes_on_where_everything_that_stays_open_is_held_back(
    serve: Callable[..., ServerProcess], everywhere: Everywhere
) -> None:
    server = serve(*OPTIONS)
    with proxy_of(server) as proxy:
        proxy.swallows = proxy.buffers = True
        pages = begin(everywhere, server, proxy, {}, MODULE)
        for page in pages:
            page.wait_for_transport("poll")
            page.wait_for("window.got.length", "it is subscribed")  # before, it knows no position to go on from
            page.chat("poll")
        proxy.swallows = proxy.buffers = False
        for page in pages:
            page.wait_for_transport("websocket")
            page.chat("websocket")
            page.check(is_late=True)


@pytest.mark.parametrize("transport", ["stream", "poll"])
def test_a_transport_may_be_forced(serve: Callable[..., ServerProcess], everywhere: Everywhere, transport: str) -> None:
    server = serve(*OPTIONS)
    with proxy_of(server) as proxy:
        for page in begin(everywhere, server, proxy, {"transports": [transport]}, SCRIPT):
            page.chat("forced", 50)
            page.check()
            assert page.get("window.client.transport") == transport
            assert page.tab.browser.execute_async_script("client.close().then(() => arguments[0](true))")
