"""
The ``EventSource`` of a real Chromium, from another origin and with a ticket, and that of a real Firefox, too, across
restarts of the server.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from integration._docs import free_port
from integration._firefox import FIREFOX, FirefoxTab
from integration._server import ServerProcess, http_request, message, wait_until
from integration.test_browser import BROWSER, DRIVER, MISSING, PATIENCE, Tab, browser, elsewhere, everywhere, tab

__all__ = ["browser", "elsewhere", "everywhere", "tab"]

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER) and FIREFOX is None, reason="no browser is installed")
needs_chromium = pytest.mark.skipif(not (BROWSER and DRIVER), reason=MISSING)

LISTEN = """
window.got = []; window.told = []; window.opened = 0;
const source = new EventSource(arguments[0], {withCredentials: true});
source.onopen = () => { window.opened += 1; };
source.onerror = (event) => { if (source.readyState === EventSource.CLOSED) window.told.push("closed"); };
source.addEventListener("chat", (event) => window.got.push(JSON.parse(event.data).BODY));
source.addEventListener("missed", () => window.told.push("missed"));
window.source = source;
"""


def publish(port: int, channel: str, body: str) -> None:
    status, _, answer = http_request(port, "POST", "/publish", message("chat", {"publish": channel}, body))
    assert status == 200, answer


def wait_for(opened: Tab | FirefoxTab, script: str, value: object) -> None:
    what = f"{script} is {value} in {opened.name}"
    wait_until(lambda: opened.browser.execute_script(f"return {script}") == value, what, 4 * PATIENCE)


def test_nothing_is_missed_or_twice_across_restarts(
    serve: Callable[..., ServerProcess], everywhere: Callable[[str], list[Tab | FirefoxTab]], tmp_path: Path
) -> None:
    port = free_port()
    options = ("--history", "room.*", "--history-store", f"sqlite:{tmp_path}/history.db")
    listen = ("--port", f"tcp:{port}:interface=127.0.0.1:backlog=1024")
    server = serve(*options, listen=listen)
    pages = everywhere(f"http://127.0.0.1:{port}/lhttp.js")

    def wait_for_all(script: str, value: object) -> None:
        for page in pages:
            wait_for(page, script, value)

    for page in pages:
        page.browser.execute_script(LISTEN, "/events?channel=room.a&channel=room.ü")
    wait_for_all("window.opened", 1)
    wanted: list[str] = []
    for life in range(3):
        if life != 1:  # in one of its lives, nothing comes before the end
            for number in range(3):
                wanted.append(f"{life} {number}")
                publish(port, "room.a" if number % 2 else "room.ü", wanted[-1])
            wait_for_all("window.got", wanted)
        if life == 2:
            server.crash()
        else:
            server.stop()
        server = serve(*options, listen=listen)
        wanted.append(f"{life} while it was away")
        publish(port, "room.a", wanted[-1])
        wait_for_all("window.got", wanted)
    for page in pages:
        assert page.browser.execute_script("return window.told") == [], page.name
        assert page.browser.execute_script("return window.opened") >= 4, page.name


@needs_chromium
def test_a_page_of_another_origin_listens_if_it_is_allowed(
    serve: Callable[..., ServerProcess], tab: Callable[[str], Tab], elsewhere: tuple[Path, str]
) -> None:
    directory, address = elsewhere
    (directory / "page.html").write_text("<!doctype html><title>elsewhere</title>", encoding="utf-8")
    origin = address.rstrip("/").replace("127.0.0.1", "localhost")
    allowed, other = serve("--allow-origin", origin), serve("--allow-origin", "https://app.example")
    for server, told in ((allowed, []), (other, ["closed"])):
        page = tab(f"{origin}/page.html")
        page.browser.execute_script(LISTEN, f"http://127.0.0.1:{server.port}/events?channel=a")
        wait_for(page, "window.told.length + window.opened", 1)
        publish(server.port, "a", "hello")
        if not told:
            wait_for(page, "window.got", ["hello"])
        assert page.browser.execute_script("return window.told") == told


@needs_chromium
def test_a_page_logs_in_with_a_ticket(
    serve: Callable[..., ServerProcess], tab: Callable[[str], Tab], tmp_path: Path
) -> None:
    (tmp_path / "users").write_text("ada:secret\n", encoding="utf-8")
    (tmp_path / "users").chmod(0o600)
    server = serve("--auth", f"file:{tmp_path}/users")
    page = tab(f"http://127.0.0.1:{server.port}/lhttp.js")
    script = """
    const done = arguments[arguments.length - 1];
    fetch("/events/ticket", {method: "POST", headers: {Authorization: "Basic " + btoa("ada:secret")}})
      .then((response) => response.json()).then((answer) => done(answer.ticket), (error) => done(String(error)));
    """
    ticket = page.browser.execute_async_script(script)
    page.browser.execute_script(LISTEN, f"/events?channel=a&ticket={ticket}")
    wait_for(page, "window.opened", 1)
    page.browser.execute_script(LISTEN, f"/events?channel=a&ticket={ticket}")
    wait_for(page, "window.told", ["closed"])
