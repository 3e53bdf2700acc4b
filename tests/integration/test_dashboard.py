"""The dashboard of the admin side, in a real Chromium: what an operator does, and what hostile names do not."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from integration._server import TIME_LIMIT, ServerProcess, http_request, message, open_client, recv_bytes, wait_until
from integration.test_admin_api import Admin
from integration.test_browser import BROWSER, DRIVER, PATIENCE, By, Keys, Tab, browser, complaints, tab

__all__ = ["browser", "tab"]

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromium-driver are not installed")

SECRET = "operator-secret-0123456789"
EDITOR = "editor-secret-0123456789"
CONFIG = """
login-parameter = "name"
presence = ["room.>"]
history = ["room.>"]
[admin]
listen = "tcp:0:interface=127.0.0.1"
[admin.keys.operator]
secret_file = "key"
methods = ["*"]
[admin.keys.editor]
secret_file = "editor"
methods = ["publish", "channels", "connections", "history"]
channels = ["news.>"]
"""
ROOM = "<b>&amp;<img/src=x/onerror=alert(1)>\u202egnp"
HACK = "document.title='hacked'"
HOSTILE = (
    f'<img src=x onerror="{HACK}">',
    f"<script>{HACK}</script>",
    f"javascript:{HACK}//",
    "\u05d0\u05d1\u05d2 admin",
    "x" * 255,
    "../../../api/info?#",
    "%00%2e%2e%0d%0a",
)


def subscribe(client: Any, channel: str) -> None:
    client.send(message("x", {"subscribe": channel, "receipt": "s"}))
    assert b"receipt-id:s" in recv_bytes(client)[0]


class Board(Tab):
    """A tab with the dashboard."""

    def __init__(self, opened: Tab, admin: Admin) -> None:
        self._browser, self._handle = opened._browser, opened._handle
        self.admin = admin
        self.url = f"http://127.0.0.1:{admin.port}/"

    def log_in(self, secret: str = SECRET) -> None:
        """Type in a key."""
        wait_until(lambda: self.texts("input[type=password]"), "the login", PATIENCE)
        self.write("input[type=password]", secret)
        self.see("header.top .own", "Key")

    def go(self, *parts: str) -> None:
        """Open a view."""
        self.browser.execute_script("location.hash = arguments[0]", "#/" + "/".join(quote(part, "") for part in parts))

    def see(self, selector: str, text: str) -> None:
        """Return when an element with a text is there."""
        wait_until(lambda: any(text in each for each in self.texts(selector)), f"{text!r} at {selector}", PATIENCE)

    def press(self, selector: str, text: str) -> None:
        """Press the button, or follow the link, with this text."""
        self.see(selector, text)
        (found,) = [
            each
            for each in self.browser.find_elements(By.CSS_SELECTOR, selector)
            if each.get_property("textContent").strip() == text
        ]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()

    def type(self, selector: str, text: str) -> None:
        """Write into a field."""
        field = self.find(selector)
        field.clear()
        field.send_keys(text)


@pytest.fixture
def start(serve: Callable[..., ServerProcess], tmp_path: Path) -> Callable[..., Admin]:
    (tmp_path / "lhttp.toml").write_text(CONFIG, "utf-8")
    for name, secret in (("key", SECRET), ("editor", EDITOR)):
        (tmp_path / name).write_text(secret, "utf-8")
        (tmp_path / name).chmod(0o600)
    return lambda *arguments: Admin(serve("--config", "lhttp.toml", *arguments))


@pytest.fixture
def board(start: Callable[..., Admin], tab: Callable[[str], Tab]) -> Iterator[Callable[..., Board]]:
    """Start a server, and open its dashboard. At the end the browser must not have complained."""
    opened: list[Board] = []

    def open_board(*arguments: str) -> Board:
        admin = start(*arguments)
        opened.append(Board(tab(f"http://127.0.0.1:{admin.port}/"), admin))
        return opened[-1]

    yield open_board
    for each in opened:
        assert [line for line in complaints(each.browser) if "status of 40" not in line] == []
        assert each.browser.execute_script("return document.title") != "hacked"


def test_the_page_needs_no_key_and_may_load_nothing_else(start: Callable[..., Admin]) -> None:
    admin = start()
    status, headers, body = http_request(admin.port, "GET", "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "server" not in headers
    for path in (b"/static/main.js", b"/static/theme.css"):
        assert path in body
        assert http_request(admin.port, "GET", path.decode())[0] == 200
    for path in ("/static/", "/static", "/static/index.html", "/static/../api/info", "/static/main.js/", "/index.html"):
        assert http_request(admin.port, "GET", path)[0] in {401, 404}
    assert http_request(admin.port, "POST", "/", b"")[0] == 405
    assert http_request(admin.server.port, "GET", "/static/main.js")[0] == 426  # the public port has the WebSocket only


def test_a_link_leads_to_the_page_from_anywhere_and_nothing_else(start: Callable[..., Admin]) -> None:
    admin = start()

    def ask(path: str, **headers: str) -> int:
        found = {f"Sec-Fetch-{name.title()}": value for name, value in headers.items()}
        return http_request(admin.port, "GET", path, None, found)[0]

    assert ask("/", site="cross-site", dest="document", mode="navigate") == 200
    assert ask("/", site="cross-site", dest="iframe", mode="navigate") == 403
    assert ask("/", site="cross-site", dest="empty", mode="no-cors") == 403
    assert ask("/static/main.js", site="cross-site", dest="script") == 403
    assert (
        http_request(admin.port, "GET", "/", None, {"Host": "rebound.example", "Sec-Fetch-Dest": "document"})[0] == 403
    )


def test_an_operator_logs_in_searches_and_kicks(board: Callable[..., Board]) -> None:
    page = board()
    page.write("input[type=password]", "a-wrong-secret-0123456789")
    page.see("[role=alert]", "not valid")
    page.log_in()
    port = page.admin.server.port
    with open_client(port, "/?name=jack") as jack, open_client(port, "/?name=jill") as jill:
        subscribe(jack, "room.a")
        subscribe(jill, "room.a")
        page.see(".tile", "Connections2")
        page.type("#search", "JAC")
        page.see(".found a", "jack")
        page.find("#search").send_keys(Keys.ENTER)
        page.see("h1", "Connections of jack")
        page.press("td a", page.admin.call("connections", user="jack")["connections"][0]["connection"])
        page.see(".facts", "websocket")
        page.see(".chips", "room.a")
        page.type("main .inline input", "room.b")
        page.press("main .inline button", "Subscribe")
        page.see(".chips", "room.b")
        page.press("main button", "Kick")
        page.type("dialog input[type=number]", "4009")
        page.type("dialog input[type=text]", "go home")
        page.press("dialog button", "Kick")
        with pytest.raises(Exception, match=r"4009.*go home"):
            jack.recv(timeout=TIME_LIMIT)
        page.see("[role=status]", "has ended")
        assert jill.close_code is None


def test_an_operator_publishes(board: Callable[..., Board]) -> None:
    page = board()
    page.log_in()
    with open_client(page.admin.server.port) as client:
        subscribe(client, "room.a")
        page.go("channel", "room.a")
        page.see("td", "none")
        page.type("form.publish input", "chat")
        page.type("form.publish textarea", "by:me")
        page.type("form.publish .wide textarea", "5 < 6 & 7 €")
        page.press("form.publish button", "Publish")
        got, _ = recv_bytes(client)
        assert got.startswith(b"LHTTP/1.0 chat\r\n")
        assert b"\r\nby:me\r\n" in got
        assert got.endswith("5 < 6 & 7 €".encode())
        page.see(".toasts", "Published at")
        page.type("form.publish textarea", "nonsense")
        page.press("form.publish button", "Publish")
        page.see(".toasts", "NAME:VALUE")


def test_an_operator_browses_a_history_and_presence(board: Callable[..., Board]) -> None:
    page = board()
    page.log_in()
    for number in range(30):
        page.admin.call(
            "publish", channel="room.a", command=f"c{number}", headers={"by": HACK}, body=f"<b>{number}</b>"
        )
    with open_client(page.admin.server.port, "/?name=jack") as jack:
        subscribe(jack, "room.a")
        page.go("channel", "room.a")
        page.see("main .note", "1 person with 1 connection")
        page.see("td", "c29")
        assert "<b>29</b>" not in page.texts("td pre")
        page.press("main label", "Show bodies")
        page.see("td pre", "<b>29</b>")
        page.press("button", "Older")
        page.see("td", "c0")
        assert page.texts("td pre.body") == [f"<b>{number}</b>" for number in range(4, -1, -1)]
        page.press("button", "Remove")
        page.press("dialog button", "Remove")
        page.see("main .note", "Nothing is kept here.")
        page.go("channel", "other")
        page.see("main .note", "does not keep the history")
        page.see("main .note", "does not keep the presence")
    assert page.admin.call("history", channel="room.a")["messages"] == []


def test_an_operator_sees_what_goes_on(board: Callable[..., Board]) -> None:
    page = board("--metrics")
    page.log_in()
    with open_client(page.admin.server.port, "/?name=jack") as jack:
        jack.send("nonsense")
        recv_bytes(jack)
        page.see(".incidents td", "error 400")
        page.see(".incidents td bdi", "jack")
        page.see(".plot .legends", "received")
        drawn = "return [...document.querySelectorAll('.plot path')].filter((path) => path.getAttribute('d')).length"
        wait_until(lambda: page.browser.execute_script(drawn) >= 5, "lines", PATIENCE)
    page.see(".incidents td", "closed 1000")
    page.press(".incidents label", "Errors")
    wait_until(lambda: "closed 1000" not in page.texts(".incidents td"), "errors only", PATIENCE)
    page.see(".incidents td", "error 400")


def test_an_operator_watches_messages_pass(board: Callable[..., Board]) -> None:
    page = board()
    page.log_in()
    with open_client(page.admin.server.port, f"/?name={quote(HOSTILE[0], '')}") as client:
        subscribe(client, "room.a")
        page.go("connections", "user", HOSTILE[0])
        page.press("main a", "Trace")
        page.see("main .note", "Listening")
        client.send(message("chat", {"publish": "room.a", "x": HOSTILE[1]}, "5 < 6 <b>secret</b>"))
        page.see(".trace summary", "from client")
        page.see(".trace summary", "delivered")
        page.see(".trace pre", HOSTILE[1])
        page.see(".trace bdi", HOSTILE[0])
        assert not any("secret" in text for text in page.texts(".trace li"))
        page.press("main button", "Stop")
        client.send(message("later", {"publish": "room.a"}))
        page.press("main label", "Show bodies")
        page.press("main button", "Start")
        page.see("main .note", "Listening")
        client.send(message("chat", {"publish": "room.a"}, "5 < 6 <b>secret</b>"))
        page.see(".trace pre", "5 < 6 <b>secret</b>")
        assert not any("later" in text for text in page.texts(".trace li"))
        page.go("channel", "room.a")
        page.press("main a", "Trace")
        page.see("main .note", "Listening")
        page.admin.call("publish", channel="room.a", command="news", body=HOSTILE[0])
        page.see(".trace summary", "published")
        page.see(".trace summary", "1 subscriber of this node")
    page.admin.server.wait_for_log("begins to trace the channel 'room.a'")


def test_a_key_sees_what_it_may(board: Callable[..., Board]) -> None:
    page = board()
    page.log_in(EDITOR)
    assert page.texts("header.top nav a") == ["Overview", "Connections", "Channels"]
    assert page.texts("#search") == []
    page.see(".note", "may not call nodes")
    page.go("connections")
    page.see(".note", "only on the page of a channel")
    with open_client(page.admin.server.port, "/?name=jack") as client:
        subscribe(client, "news.de")
        page.go("channel", "news.de")
        page.see("td", "jack")
        page.go("channel", "room.a")
        page.see(".note", "may not use the channel")


def test_the_key_is_gone_after_logout_and_in_other_tabs(board: Callable[..., Board], tab: Callable[[str], Tab]) -> None:
    page = board()
    page.log_in()
    page.browser.refresh()
    page.see("header.top .own", "operator")
    other = tab(page.url)
    wait_until(lambda: other.texts("input[type=password]"), "a login in another tab", PATIENCE)
    page.press("header.top button", "Log out")
    assert page.texts("input[type=password]") == [""]
    stored = "return JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, location.href])"
    assert SECRET not in page.browser.execute_script(stored)
    page.browser.refresh()
    wait_until(lambda: page.texts("input[type=password]"), "a login", PATIENCE)


def test_hostile_names_are_texts(board: Callable[..., Board]) -> None:
    page = board()
    page.log_in()
    port = page.admin.server.port
    with ExitStack() as stack:
        for user in HOSTILE:
            client = stack.enter_context(open_client(port, f"/?name={quote(user, '')}"))
            subscribe(client, ROOM)
        page.go("users")
        for user in HOSTILE:
            page.see("td bdi", user)
        assert (
            page.browser.execute_script("return document.querySelectorAll('main img, main script, main b').length") == 0
        )
        page.go("connections")
        page.see("td bdi", HOSTILE[0])
        page.go("channels")
        page.press("td a", ROOM)
        page.see("h1", "<img/src=x")
        page.see("td bdi", HOSTILE[0])
        for user in HOSTILE:
            page.go("connections", "user", user)
            page.see("h1 bdi", user)
            wait_until(lambda: len(page.texts("tbody tr")) == 1, "one connection", PATIENCE)
            page.type("#search", user[:40])
            page.see(".found bdi", user)
            page.find("#search").send_keys(Keys.ESCAPE)
        page.press("main button", "Kick")
        page.see("dialog h2 bdi", HOSTILE[-1])
        page.press("dialog button", "Cancel")
        wide = "return document.documentElement.scrollWidth <= innerWidth"
        assert page.browser.execute_script(wide)
        page.go("channel", "x" * 65_536)
        page.see(".note", "255 characters")
        assert page.browser.execute_script(wide)
        page.browser.execute_script("location.hash = '#/%ff'")
        page.see("h1", "Not found")
        page.browser.execute_script("location.hash = '#/constructor'")
        page.see("h1", "Not found")


def test_keys_lead_everywhere(board: Callable[..., Board]) -> None:
    page = board()
    page.log_in()
    body = page.find("body")
    body.send_keys("2")
    page.see("h1", "Connections")
    body.send_keys("?")
    page.see("dialog", "Search")
    page.find("dialog button").send_keys(Keys.ESCAPE)
    wait_until(lambda: page.texts("dialog") == [], "no dialog", PATIENCE)
    page.find("body").send_keys("/")
    assert page.browser.execute_script("return document.activeElement.id") == "search"


def test_lists_of_thousands_come_in_pages(board: Callable[..., Board]) -> None:
    page = board()
    page.log_in()
    with open_client(page.admin.server.port, "/?name=jack") as client:
        for number in range(120):
            client.send(message("x", {"subscribe": f"c.{number:03}"}))
        subscribe(client, "d")
        page.go("channels")
        page.see("td a", "c.000")
        assert len(page.texts("tbody tr")) == 50
        page.press("button", "Next page")
        page.see("td a", "c.099")
        page.press("button", "Next page")
        page.see("td a", "c.119")
        assert len(page.texts("tbody tr")) == 21
        page.press("button", "Previous page")
        page.see("td a", "c.050")


def test_a_login_survives_a_server_that_goes_away(board: Callable[..., Board]) -> None:
    page = board()
    page.log_in()
    page.admin.server.stop()
    page.see("[role=alert]", "cannot be reached")
    told = json.loads(page.browser.execute_script("return JSON.stringify(Object.keys(sessionStorage))"))
    assert told == ["lhttp-admin-key"]
    page.browser.get_log("browser")  # it was refused connections
    with pytest.raises(ConnectionError):
        http.client.HTTPConnection("127.0.0.1", page.admin.port, timeout=TIME_LIMIT).request("GET", "/")
