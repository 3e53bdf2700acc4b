"""
The chat page and the JavaScript client in a real Chromium, driven by Selenium, and some of it in Firefox, too.

Debian's packages are ``chromium`` and ``chromium-driver``. Without them, or without Selenium, the tests are skipped.
What may differ between browsers runs in all that are installed, at the same time.
"""

from __future__ import annotations

import http.server
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration._client import start_lhttp, url_of
from integration._docs import ROOT, Block, Process, find_blocks, free_port, wait_for_port
from integration._firefox import Firefox, FirefoxTab
from integration._server import ServerProcess, http_request, open_client, recv_bytes, wait_until

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

TESTS = ROOT / "tests"
SNIPPETS = [
    block
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.rst")))
    for block in find_blocks(page)
    if block.kind == "browser"
]
BROWSER = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"),
)
PATIENCE = 30.0

LIFETIME = 12
"""Seconds that a token lasts; the page gets the next one when half of them have gone."""

HTML = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\"> & <b>bold</b>"

MISSING = "chromium and chromium-driver are not installed"

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason=MISSING)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(PATIENCE)
    yield driver
    driver.quit()


class Tab:
    """A tab of the browser, with the chat page in it or another."""

    name = "chromium"

    def __init__(self, browser: Any, url: str) -> None:
        self._browser = browser
        browser.switch_to.new_window("tab")
        self._handle = browser.current_window_handle
        browser.get(url)

    @property
    def browser(self) -> Any:
        """The browser, with this tab in front."""
        self._browser.switch_to.window(self._handle)
        return self._browser

    def find(self, selector: str) -> Any:
        """Return the element that the CSS *selector* finds."""
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Return the text of all elements that the CSS *selector* finds."""
        script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)"
        found: list[str] = self.browser.execute_script(script, selector)
        return found

    def wait(self, selector: str, texts: list[str]) -> None:
        """Return when the elements have these texts."""
        wait_until(lambda: self.texts(selector) == texts, f"{texts} at {selector}", PATIENCE)

    def wait_for_state(self, state: str) -> None:
        """Return when the page shows that its connection is in *state*."""
        wait_until(lambda: self.find("#state").get_attribute("data-state") == state, f"state {state}", PATIENCE)

    def write(self, selector: str, text: str) -> None:
        """Replace what is in a field, and press Enter."""
        field = self.find(selector)
        field.clear()
        field.send_keys(text + Keys.ENTER)

    def close(self) -> None:
        """Close it."""
        self.browser.close()
        self._browser.switch_to.window(self._browser.window_handles[0])


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[[str], Tab]]:
    """Open tabs, and close them at the end of the test."""
    opened: list[Tab] = []

    def open_tab(url: str) -> Tab:
        opened.append(Tab(browser, url))
        return opened[-1]

    yield open_tab
    for one in opened:
        one.close()


@pytest.fixture
def everywhere(
    request: pytest.FixtureRequest, firefox: Firefox | None
) -> Iterator[Callable[[str], list[Tab | FirefoxTab]]]:
    """Open tabs in all browsers that are installed, and say which are not."""
    in_chromium: Callable[[str], Tab] | None = request.getfixturevalue("tab") if BROWSER and DRIVER else None
    in_firefox: list[FirefoxTab] = []

    def open_tabs(url: str) -> list[Tab | FirefoxTab]:
        found: list[Tab | FirefoxTab] = [] if in_chromium is None else [in_chromium(url)]
        if firefox is not None:
            in_firefox.append(firefox.open(url))
            found.append(in_firefox[-1])
        return found

    yield open_tabs
    for one in in_firefox:
        one.close()
    if in_chromium is None or firefox is None:
        missing = "firefox-esr is not installed" if firefox is None else MISSING
        pytest.skip(f"{missing}: this ran in the other browser alone")


@pytest.fixture
def chat(tab: Callable[[str], Tab]) -> Callable[..., Tab]:
    """Open the chat page of a server as somebody."""

    def open_chat(server: ServerProcess, name: str, path: str = "/") -> Tab:
        opened = tab(f"http://127.0.0.1:{server.port}{path}")
        opened.write("#name", name)
        opened.wait_for_state("open")
        return opened

    return open_chat


@pytest.fixture
def demo(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """A server with the chat page."""
    return serve("--demo")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory, and the address at which another web server of this machine serves it."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        extensions_map = {".html": "text/html; charset=utf-8", ".mjs": "text/javascript", ".json": "application/json"}

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield tmp_path, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def complaints(browser: Any) -> list[str]:
    """Return what the browser complained about since the last time: errors, and what the policy forbade."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


SUBPROTOCOL = """
const [url, offer, done] = arguments;
const socket = new WebSocket(url, offer);
socket.onopen = () => { done(socket.protocol); socket.close(); };
socket.onerror = () => done("refused");
"""


def test_a_page_that_offers_a_subprotocol_is_connected(demo: ServerProcess, tab: Callable[[str], Tab]) -> None:
    page = tab(f"http://127.0.0.1:{demo.port}/")
    found = [
        page.browser.execute_async_script(SUBPROTOCOL, f"ws://127.0.0.1:{demo.port}/", offer)
        for offer in ([], ["chat"], ["other", "lhttp"])
    ]
    assert found == ["", "chat", "lhttp"]


def test_two_tabs_chat_with_each_other(demo: ServerProcess, chat: Callable[..., Tab]) -> None:
    ada, bob = chat(demo, "Ada"), chat(demo, "Bob Ü.")
    ada.write("#text", "hello: 5:30\u00a0€")
    bob.wait("#scroll p", ["hello: 5:30\u00a0€"])
    bob.write("#text", "hello Ada")
    for tab in (ada, bob):
        tab.wait("#scroll p", ["hello: 5:30\u00a0€", "hello Ada"])
        tab.wait("#scroll b", ["Ada", "Bob Ü."])
        assert complaints(tab.browser) == []
    assert ada.texts("#scroll li.waiting") == []


@pytest.fixture
def token_login(tmp_path: Path) -> Iterator[tuple[str, Callable[[], ServerProcess]]]:
    """The URL of the example's backend, whose tokens do not last long, and a function that starts its server."""
    (tmp_path / "secret").write_text("0123456789abcdef" * 4)
    port = free_port()
    options = ("--jwt-key-file", "secret", "--jwt-audience", "chat", "--login-timeout", "60")
    listen = ("--port", f"tcp:{port}:interface=127.0.0.1")
    started: list[ServerProcess] = []

    def start() -> ServerProcess:
        started.append(ServerProcess(*options, cwd=tmp_path, listen=listen))
        return started[-1]

    example = shutil.copytree(ROOT / "examples/token_login", tmp_path / "token_login")
    program = example / "backend.py"
    code = program.read_text("utf-8")
    assert "LIFETIME = 180" in code
    program.write_text(code.replace("LIFETIME = 180", f"LIFETIME = {LIFETIME}"), "utf-8")
    backend_port = free_port()
    command = [sys.executable, str(program), str(backend_port), str(tmp_path / "secret"), str(port)]
    with Process(command, tmp_path) as backend:
        wait_for_port(backend_port, backend)
        yield f"http://127.0.0.1:{backend_port}/", start
    for server in started:
        server.check()


def log_in(page: Tab, user: str, password: str) -> None:
    """Fill in the form of the example token_login."""
    page.find("#user").clear()
    page.find("#user").send_keys(user)
    page.write("#password", password)


def test_the_page_of_the_example_token_login_takes_its_token_to_the_server(
    token_login: tuple[str, Callable[[], ServerProcess]], tab: Callable[[str], Tab]
) -> None:
    url, start = token_login
    start()
    page = tab(url)
    log_in(page, "alice", "marmalade")
    page.wait("#state", ["wrong user or password\n"])
    log_in(page, "alice", "sesame")
    page.wait("#state", ["Logged in as alice"])
    assert [page.find(form).is_displayed() for form in ("#login", "#write")] == [False, True]
    page.write("#text", "hello <b>!</b>")
    page.wait("#messages li", ["hello <b>!</b>"])
    page.find("#logout").click()
    page.wait("#state", ["Not logged in"])
    log_in(page, "bob", "marmalade")
    page.wait("#state", ["Logged in as bob"])
    page.write("#text", "hello alice")
    page.wait("#messages li", ["hello <b>!</b>", "hello alice"])
    (told,) = complaints(page.browser)
    assert "403" in told


def test_the_page_of_the_example_token_login_outlives_its_token_and_its_server(
    token_login: tuple[str, Callable[[], ServerProcess]], tab: Callable[[str], Tab]
) -> None:
    url, start = token_login
    server = start()
    page = tab(url)
    log_in(page, "alice", "sesame")
    page.wait("#state", ["Logged in as alice"])
    server.crash()
    page.wait("#state", ["Connecting again"])
    page.write("#text", "written while it is away")
    start()
    page.wait("#messages li", ["written while it is away"])
    page.wait("#state", ["Logged in as alice"])
    page.browser.execute_script(
        "window.shown = []; const state = document.getElementById('state');"
        "new MutationObserver(() => shown.push(state.textContent)).observe(state, {childList: true})"
    )
    expired = time.monotonic() + LIFETIME + 1
    wait_until(lambda: time.monotonic() > expired, "the first token has expired", PATIENCE)
    page.write("#text", "still here")
    page.wait("#messages li", ["written while it is away", "still here"])
    shown = page.browser.execute_script("return shown")
    assert len(shown) > 1
    assert set(shown) == {"Logged in as alice"}
    assert all("ERR_CONNECTION_REFUSED" in told for told in complaints(page.browser))


KEEPING = """
const done = arguments[0];
import("/lhttp.mjs").then(async ({ LhttpClient }) => {
  window.got = [];
  const client = new LhttpClient("/", { positions: localStorage });
  client.on("missed", ({ channel }) => got.push(`missed ${channel}`));
  client.on("recovered", ({ count }) => got.push(`recovered ${count}`));
  client.connect();
  await client.subscribe("chatroom", (message) => got.push(message.text));
}).then(() => done(""), (error) => done(String(error)));
"""


def test_a_page_that_is_loaded_anew_gets_what_came_meanwhile(
    serve: Callable[..., ServerProcess], tab: Callable[[str], Tab]
) -> None:
    server = serve("--demo", "--history", ">")
    page = tab(f"http://127.0.0.1:{server.port}/")

    def wait_for(*expected: str) -> None:
        got = "return window.got"
        wait_until(lambda: page.browser.execute_script(got) == [*expected], f"{expected}", PATIENCE)

    assert page.browser.execute_async_script(KEEPING) == ""
    publish(server, "1")
    wait_for("1")
    for expected in (["2", "recovered 1", "5"], ["6", "recovered 1", "5"]):
        page.browser.refresh()
        publish(server, expected[0])
        assert page.browser.execute_async_script(KEEPING) == ""
        publish(server, expected[2])
        wait_for(*expected)
    assert list(json.loads(page.browser.execute_script("return Object.values(localStorage)[0]"))) == ["chatroom"]
    page.browser.execute_script("localStorage.clear()")
    assert complaints(page.browser) == []


def publish(server: ServerProcess, text: str) -> None:
    """Write in the room ``chatroom``, as a program does."""
    message = f"LHTTP/1.0 chat\r\npublish:chatroom\r\nfrom:Carl\r\n\r\n{text}"
    assert http_request(server.port, "POST", "/publish", message)[0] == 200


def test_a_page_that_comes_later_shows_the_last_fifty_messages(
    serve: Callable[..., ServerProcess], chat: Callable[..., Tab]
) -> None:
    server = serve("--demo", "--history", ">")
    for number in range(60):
        publish(server, str(number))
    ada = chat(server, "Ada")
    ada.wait("#scroll p", [str(number) for number in range(10, 60)])
    assert ada.texts(".unread, .notice") == []
    ada.write("#text", "hello")
    ada.wait("#scroll li.mine p", ["hello"])
    ada.wait("#scroll li.waiting", [])
    ada.browser.refresh()
    ada.wait("#scroll p", [*(str(number) for number in range(11, 60)), "hello"])
    ada.write("#room", "garden")
    ada.wait("#current", ["garden"])
    empty = "return getComputedStyle(document.querySelector('#scroll ol'), '::before').content"
    wait_until(lambda: "yet" in ada.browser.execute_script(empty), "an empty history", PATIENCE)
    assert complaints(ada.browser) == []


SWITCH = """
const Original = window.WebSocket;
let socket = null;
let isAway = false;
window.WebSocket = class extends Original {
  constructor(url) { super(isAway ? "ws://127.0.0.1:1/" : url); socket = this; }
};
const fetched = fetch;
window.fetch = (...told) => isAway ? Promise.reject(new TypeError("away")) : fetched(...told);
window.goAway = () => { isAway = true; socket.close(4000); };
window.comeBack = () => { isAway = false; dispatchEvent(new Event("online")); };
"""


def test_what_was_missed_comes_below_a_line_that_says_so(
    serve: Callable[..., ServerProcess], chat: Callable[..., Tab]
) -> None:
    server = serve("--demo", "--history", ">", "--history-messages", "5")
    ada = chat(server, "Ada")
    ada.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SWITCH})
    ada.browser.refresh()
    ada.wait_for_state("open")
    ada.write("#text", "before")
    ada.wait("#scroll li.waiting", [])
    lines = {1: "You missed one message:", 3: "You missed 3 messages:", 9: "Messages are missing here."}
    expected = ["before"]
    for count, line in lines.items():
        ada.browser.execute_script("goAway()")
        ada.wait_for_state("reconnecting")
        for number in range(count):
            publish(server, f"{number} of {count}")
        ada.browser.execute_script("comeBack()")
        expected += [line, *(f"{number} of {count}" for number in range(count)[-5:])]
        ada.wait("#scroll p, #scroll .notice", expected)
    ada.write("#text", "after")
    ada.wait("#scroll li.waiting", [])
    assert ada.texts("#scroll p, #scroll .notice") == [*expected, "after"]
    assert ada.texts("#scroll li:not(.follows) b") == ["Ada", "Carl", "Carl", "Carl", "Ada"]
    assert all("127.0.0.1:1/" in told for told in complaints(ada.browser))


def test_what_was_missed_is_shown_and_what_is_lost_is_told(
    chat: Callable[..., Tab], tmp_path: Path, serve: Callable[..., ServerProcess]
) -> None:
    first = ServerProcess("--demo", "--history", ">", cwd=tmp_path)
    ada = chat(first, "Ada")
    ada.write("#text", "before")
    ada.wait("#scroll li.waiting", [])
    first.crash()
    ada.wait_for_state("reconnecting")
    ada.write("#text", "meanwhile")
    listen = ("--port", f"tcp:{first.port}:interface=127.0.0.1")
    second = serve("--demo", "--history", ">", listen=listen)
    ada.wait_for_state("open")
    ada.wait("#scroll li.waiting", [])
    told = ["before", "Messages are missing here.", "meanwhile"]
    wait_until(lambda: ada.texts("#scroll p, #scroll .notice") == told, "what is missing", PATIENCE)
    assert second.port == first.port
    complaints(ada.browser)


def test_the_page_of_the_example_rooms_shows_who_is_there(tab: Callable[[str], Tab], tmp_path: Path) -> None:
    port = free_port()
    with Process([sys.executable, str(ROOT / "examples/rooms/server.py"), str(port)], tmp_path) as server:
        wait_for_port(port, server)
        ada, ben = tab(f"http://127.0.0.1:{port}/?name=ada"), tab(f"http://127.0.0.1:{port}/?name=ben")
        for page in (ada, ben):
            page.wait("#count", ["2 here:"])
            page.wait("#names", ["ada, ben"])
        ben.write("#text", "/name bob")
        ada.wait("#names", ["ada, bob"])
        ben.wait("#state", ["You are bob"])
        ben.write("#text", "hello <b>!</b>")
        ada.wait("#messages li:not(.notice)", ["bob: hello <b>!</b>"])
        ben.write("#text", "/room quiet")
        ben.wait("#names", ["bob"])
        ada.wait("#names", ["ada"])
        other = tab(f"http://127.0.0.1:{port}/?name=ada")
        ada.wait("#state", ["ada is logged in elsewhere"])
        other.wait("#state", ["You are ada"])
        assert complaints(other.browser) == []


def test_both_tabs_go_on_after_the_server_was_killed_and_started_again(
    demo: ServerProcess, serve: Callable[..., ServerProcess], tmp_path: Path, chat: Callable[..., Tab]
) -> None:
    first = ServerProcess("--demo", cwd=tmp_path)
    ada, bob = chat(first, "Ada"), chat(first, "Bob")
    for tab in (ada, bob):
        tab.browser.execute_script("window.notReloaded = true")
    first.stop(signal.SIGKILL)
    first.kill()
    for tab in (ada, bob):
        tab.wait_for_state("reconnecting")
    ada.write("#text", "written while it is away")
    ada.wait("#scroll li.waiting p", ["written while it is away"])
    serve("--demo", listen=("--port", f"tcp:{first.port}:interface=127.0.0.1"))
    for tab in (ada, bob):
        tab.wait_for_state("open")
    ada.wait("#scroll li.waiting", [])
    bob.write("#text", "from Bob")
    ada.wait("#scroll p", ["written while it is away", "from Bob"])
    ada.write("#text", "from Ada")
    wait_until(lambda: bob.texts("#scroll p")[-2:] == ["from Bob", "from Ada"], "both messages", PATIENCE)
    for tab in (ada, bob):
        assert tab.browser.execute_script("return window.notReloaded") is True


def test_both_tabs_and_the_command_chat_across_a_restart_of_the_server(
    serve: Callable[..., ServerProcess], chat: Callable[..., Tab], tmp_path: Path
) -> None:
    server = serve("--demo")
    ada, bob = chat(server, "Ada"), chat(server, "Bob Ü.")
    with start_lhttp(tmp_path, "chat", url_of(server.port), "--name", "Carl") as carl:
        carl.wait_for_output("* you are Carl in chatroom\n")
        said = []

        def say(who: Any, name: str, text: str) -> None:
            """Let one of them say something, and wait until all three have got it."""
            who.type(text) if who is carl else who.write("#text", text)
            said.append((name, text))
            for tab in (ada, bob):
                tab.wait("#scroll p", [text for _, text in said])
                tab.wait("#scroll b", [name for name, _ in said])
            carl.wait_for_output(f" {name}: {text}\n")

        for tab in (ada, bob):
            tab.browser.execute_script("window.notReloaded = true")
        say(ada, "Ada", "hello Carl: 5:30 €")
        say(carl, "Carl", "hello pages <b>!</b>")
        say(bob, "Bob Ü.", "hello both")

        server.crash()
        carl.wait_for_output("trying to connect again\n")
        for tab in (ada, bob):
            tab.wait_for_state("reconnecting")
        serve("--demo", listen=("--port", f"tcp:{server.port}:interface=127.0.0.1"))
        carl.wait_for_output("* connected again\n")
        for tab in (ada, bob):
            tab.wait_for_state("open")

        say(carl, "Carl", "are you there?")
        say(bob, "Bob Ü.", "yes")
        say(ada, "Ada", "here, too")
        lines = [line.partition(" ")[2] for line in carl.output.splitlines() if not line.startswith("*")]
        assert lines == [f"{name}: {text}" for name, text in said]
    for tab in (ada, bob):
        assert tab.browser.execute_script("return window.notReloaded") is True


def test_what_people_write_never_becomes_markup(demo: ServerProcess, chat: Callable[..., Tab]) -> None:
    ada, bob = chat(demo, "<i>Ada</i>"), chat(demo, "Bob")
    ada.write("#text", HTML)
    bob.wait("#scroll p", [HTML])
    bob.wait("#scroll b", ["<i>Ada</i>"])
    ada.write("#room", "<u>room</u>")
    ada.wait(".room", ["chatroom", "<u>room</u>"])
    for tab in (ada, bob):
        assert (
            tab.browser.execute_script("return document.querySelectorAll('main script, img, main b b, i, u').length")
            == 0
        )
        assert tab.browser.title == "LHTTP chat"


def test_policy_of_the_page_stops_inline_code(demo: ServerProcess, chat: Callable[..., Tab]) -> None:
    ada = chat(demo, "Ada")
    ada.browser.execute_script(
        "const code = document.createElement('script'); code.textContent = 'document.title = \"hacked\"';"
        "document.body.append(code)"
    )
    assert ada.browser.title == "LHTTP chat"
    assert "Content Security Policy" in "".join(complaints(ada.browser))


def test_rooms_are_apart_and_tell_what_is_unread(demo: ServerProcess, chat: Callable[..., Tab]) -> None:
    ada, bob = chat(demo, "Ada", "/#garden"), chat(demo, "Bob")
    assert ada.find("#current").text == "garden"
    ada.write("#text", "nobody else is here")
    ada.wait("#scroll p", ["nobody else is here"])
    bob.write("#text", "hello all")
    ada.wait(".room .unread", ["1"])
    ada.find("#rooms li:first-child button").click()
    ada.wait("#scroll p", ["hello all"])
    assert ada.texts(".unread") == []
    assert bob.texts("#scroll p") == ["hello all"]
    ada.find("#rooms li:last-child button").click()
    ada.find("#leave").click()
    ada.wait(".room", ["chatroom"])


def test_malformed_room_is_refused_and_the_page_goes_on(demo: ServerProcess, chat: Callable[..., Tab]) -> None:
    ada = chat(demo, "Ada")
    ada.write("#room", "a room")
    assert "blank" in ada.browser.execute_script("return document.getElementById('room').validationMessage")
    ada.write("#room", "a.room")
    ada.wait(".room", ["chatroom", "a.room"])


def test_page_and_other_clients_chat(demo: ServerProcess, chat: Callable[..., Tab]) -> None:
    ada = chat(demo, "Ada")
    with open_client(demo.port) as client:
        client.send("LHTTP/1.0 chat\r\nsubscribe:chatroom\r\nreceipt:1\r\n\r\n")
        assert recv_bytes(client) == (b"LHTTP/1.0 receipt\r\nreceipt-id:1\r\n\r\n", False)
        ada.write("#text", "from the page")
        data, _ = recv_bytes(client)
        assert data.startswith(b"LHTTP/1.0 chat\r\npublish:chatroom\r\nfrom:Ada\r\n")
        assert data.endswith(b"\r\n\r\nfrom the page")
        client.send("LHTTP/1.0 chat\r\npublish:chatroom\r\nfrom:Carl\r\n\r\nfrom elsewhere")
        ada.wait("#scroll p", ["from the page", "from elsewhere"])
    message = "LHTTP/1.0 chat\r\npublish:chatroom\r\n\r\nby HTTP"
    assert http_request(demo.port, "POST", "/publish", message)[0] == 200
    ada.wait("#scroll b", ["Ada", "Carl", "somebody"])


@pytest.mark.parametrize("width", [320, 390])
def test_page_fits_a_phone(demo: ServerProcess, chat: Callable[..., Tab], width: int) -> None:
    ada = chat(demo, "Ada")
    size = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    ada.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    ada.write("#text", "a long word: " + "x" * 200)
    ada.wait("#scroll li.waiting", [])
    for room in ("one", "two", "three", "a.long.name.of.a.room"):
        ada.write("#room", room)
    sides = (
        "return [document.documentElement.scrollWidth, document.getElementById('text').getBoundingClientRect().bottom,"
        " ...[...document.querySelectorAll('input, #compose button, #join button')].map("
        "(element) => element.getBoundingClientRect().right)]"
    )
    page_width, bottom, *rights = ada.browser.execute_script(sides)
    assert page_width == width
    assert bottom <= 844
    assert max(rights) <= width
    ada.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


SIZES = [(320, 568), (375, 667), (667, 375), (768, 1024), (1280, 800)]


@pytest.fixture
def resize(browser: Any) -> Iterator[Callable[..., None]]:
    """Give the page of a tab another size, and the colours of the day or the night."""

    def change(tab: Tab, width: int, height: int, colours: str = "light") -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        tab.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": colours}]
        tab.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    yield change
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def paste(tab: Tab, text: str) -> None:
    """Put *text* into the field for messages, as pasting it does."""
    script = "document.getElementById('text').focus(); document.execCommand('insertText', false, arguments[0])"
    tab.browser.execute_script(script, text)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_field_for_messages_leaves_the_page_to_the_messages(
    demo: ServerProcess, chat: Callable[..., Tab], resize: Callable[..., None], width: int, height: int
) -> None:
    ada = chat(demo, "Ada")
    resize(ada, width, height)
    boxes = (
        "return ['#compose', '#text', '#scroll', '#compose button'].map((selector) => {"
        " const box = document.querySelector(selector).getBoundingClientRect();"
        " return [box.top, box.bottom, box.right, box.height] })"
    )
    for text, most in (("one line", 60), ("line\n" * 60, max(150, height * 0.31))):
        paste(ada, text)
        compose, field, scroll, button = ada.browser.execute_script(boxes)
        assert field[3] <= most
        assert max(compose[1], field[1], button[1]) <= height
        assert max(field[2], button[2]) <= width
        assert scroll[3] >= height * 0.15
        assert scroll[1] <= compose[0]
        assert ada.browser.execute_script("return document.documentElement.scrollHeight") <= height
        ada.write("#text", "")
    assert ada.browser.execute_script(boxes)[1][3] <= 60


def test_line_breaks_that_are_pasted_or_typed_stay(demo: ServerProcess, chat: Callable[..., Tab]) -> None:
    ada, bob = chat(demo, "Ada"), chat(demo, "Bob")
    paste(ada, "one\n  two\n\nthree")
    ada.find("#text").send_keys(Keys.ENTER)
    ada.find("#text").send_keys("four", Keys.SHIFT, Keys.ENTER, Keys.SHIFT, "five", Keys.ENTER)
    bob.wait("#scroll p", ["one\n  two\n\nthree", "four\nfive"])
    assert bob.find("#scroll p").size["height"] > 3 * bob.find("#scroll li:last-child time").size["height"]


def test_text_runs_in_its_own_direction(demo: ServerProcess, chat: Callable[..., Tab]) -> None:
    ada, bob = chat(demo, "\u0644\u064a\u0644\u0649"), chat(demo, "Bob")
    ada.write("#text", "\u0645\u0631\u062d\u0628\u0627 (abc)!")
    ada.wait("#scroll li.waiting", [])
    bob.write("#text", "hello")
    bob.wait("#scroll li.waiting", [])
    paste(ada, "\u0645\u0631\u062d\u0628\u0627")
    direction = "return [...document.querySelectorAll(arguments[0])].map((one) => getComputedStyle(one).direction)"
    for tab in (ada, bob):
        wait_until(lambda tab=tab: len(tab.texts("#scroll p")) == 2, "both messages", PATIENCE)
        assert tab.browser.execute_script(direction, "#scroll p") == ["rtl", "ltr"]
        assert tab.browser.execute_script(direction, "#scroll b") == ["rtl", "ltr"]
    assert ada.browser.execute_script(direction, "#text, #name") == ["rtl", "rtl"]
    assert bob.browser.execute_script(direction, "#text, #name") == ["ltr", "ltr"]


def test_messages_that_come_below_what_is_seen_are_told(demo: ServerProcess, chat: Callable[..., Tab]) -> None:
    ada, bob = chat(demo, "Ada"), chat(demo, "Bob")
    paste(bob, "line\n" * 100)
    bob.find("#text").send_keys(Keys.ENTER)
    wait_until(lambda: len(ada.texts("#scroll p")) == 1, "a long message", PATIENCE)
    assert not ada.find("#below").is_displayed()
    ada.browser.execute_script("document.getElementById('scroll').scrollTop = 0")
    for text in ("one", "two"):
        bob.write("#text", text)
    ada.wait("#below", ["2 new below"])
    assert ada.find("#below").is_displayed()
    assert ada.browser.execute_script("return document.getElementById('scroll').scrollTop") == 0
    ada.find("#below").click()
    rest = "const at = document.getElementById('scroll'); return at.scrollHeight - at.scrollTop - at.clientHeight"
    assert ada.browser.execute_script(rest) < 2
    assert not ada.find("#below").is_displayed()
    bob.write("#text", "three")
    wait_until(lambda: ada.texts("#scroll p")[-1:] == ["three"], "the last message", PATIENCE)
    assert not ada.find("#below").is_displayed()
    assert ada.browser.execute_script(rest) < 2


def test_who_sees_the_last_message_sees_it_when_the_page_gets_smaller(
    demo: ServerProcess, chat: Callable[..., Tab], resize: Callable[..., None]
) -> None:
    ada, bob = chat(demo, "Ada"), chat(demo, "Bob")
    paste(bob, "a line that is long enough to be broken on a phone and not on a desk\n" * 30)
    bob.find("#text").send_keys(Keys.ENTER)
    wait_until(lambda: len(ada.texts("#scroll p")) == 1, "a long message", PATIENCE)
    rest = "const at = document.getElementById('scroll'); return at.scrollHeight - at.scrollTop - at.clientHeight"
    for width, height in ((375, 667), (375, 330), (1280, 800), (320, 480)):
        resize(ada, width, height)
        wait_until(lambda: ada.browser.execute_script(rest) < 2, "the end", PATIENCE)
    ada.browser.execute_script("document.getElementById('scroll').scrollTop = 0")
    bob.write("#text", "more")
    ada.wait("#below", ["1 new below"])
    resize(ada, 375, 667)
    assert ada.browser.execute_script("return document.getElementById('scroll').scrollTop") < 80


def test_the_page_counts_down_to_the_next_attempt(chat: Callable[..., Tab], tmp_path: Path) -> None:
    server = ServerProcess("--demo", cwd=tmp_path)
    ada = chat(server, "Ada")
    ada.browser.execute_script(
        "Math.random = () => 0.9999; window.shown = []; const state = document.getElementById('state');"
        "new MutationObserver(() => shown.push(state.textContent)).observe(state, {childList: true, subtree: true})"
    )
    server.crash()
    seconds = [f"Reconnectingin {second} s" for second in (4, 3, 2, 1)]

    def counted() -> bool:
        shown = ada.browser.execute_script("return shown.filter((text, index) => text !== shown[index - 1])")
        return any(shown[at : at + 4] == seconds for at in range(len(shown)))

    wait_until(counted, "a count-down from 4", PATIENCE)
    complaints(ada.browser)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_time_of_a_message_can_be_read(
    demo: ServerProcess, chat: Callable[..., Tab], resize: Callable[..., None], colours: str
) -> None:
    ada, bob = chat(demo, "Ada"), chat(demo, "Bob")
    ada.write("#text", "hello")
    bob.wait("#scroll p", ["hello"])
    bob.write("#text", "hello")
    bob.wait("#scroll li.waiting", [])
    resize(bob, 375, 667, colours)
    contrast = """
        const bright = (colour) => {
          const [red, green, blue] = colour.match(/[0-9.]+/g).map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
          return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
        };
        return [...document.querySelectorAll("#scroll time")].map((time) => {
          const line = time.closest("li");
          const pair = [getComputedStyle(time).color, getComputedStyle(line).backgroundColor].map(bright);
          return getComputedStyle(line).opacity * (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        });
    """
    bob.browser.execute_script("document.querySelector('.mine').classList.add('waiting')")
    found = bob.browser.execute_script(contrast)
    assert len(found) == 2
    assert min(found) >= 5


def test_page_in_the_style_of_the_original_works_with_another_address_of_the_script(
    server: ServerProcess, tab: Callable[[str], Tab], elsewhere: tuple[Path, str]
) -> None:
    directory, address = elsewhere
    page = (TESTS / "javascript" / "original.html").read_text("utf-8")
    page = page.replace("SCRIPT", f"http://127.0.0.1:{server.port}/lhttp.js")
    (directory / "index.html").write_text(page.replace("SERVER", f"ws://127.0.0.1:{server.port}/chat"), "utf-8")
    ada, bob = tab(address), tab(address)
    for one in (ada, bob):
        wait_until(lambda one=one: one.browser.title == "open", "on_open", PATIENCE)
    for one, text in ((ada, "hello"), (bob, "a: b"), (ada, HTML)):
        one.find("#message").send_keys(text)
        one.find("#send").click()
        wait_until(lambda one=one, text=text: one.texts("li")[-1:] == [text], text, PATIENCE)
    for one in (ada, bob):
        one.wait("li", ["hello", "a: b", HTML])


@pytest.mark.parametrize("block", SNIPPETS, ids=str)
def test_pages_in_the_manual_do_what_it_says(server: ServerProcess, tab: Callable[[str], Tab], block: Block) -> None:
    opened = tab(f"http://127.0.0.1:{server.port}/")
    page = "<!doctype html><title>example</title>" + block.text.replace("8081", str(server.port))
    opened.browser.get_log("browser")  # what pages before this one have left
    opened.browser.execute_script("document.open(); document.write(arguments[0]); document.close()", page)
    logged: list[str] = []

    def has_logged() -> list[str]:
        entries = opened.browser.get_log("browser")
        logged.extend(entry["message"] for entry in entries if entry["source"] != "network")
        return logged

    wait_until(has_logged, f"{block.argument!r} in the console", PATIENCE)
    assert [message.partition(" ")[2].partition(" ")[2] for message in logged] == [f'"{block.argument}"']


def test_vectors_pass_in_the_browser_as_a_module_and_as_a_script(
    server: ServerProcess, everywhere: Callable[[str], list[Tab | FirefoxTab]], elsewhere: tuple[Path, str]
) -> None:
    directory, address = elsewhere
    names = ("messages", "malformed", "views", "malformed_json", "malformed_protobuf")
    for name in names:
        shutil.copy(TESTS / "vectors" / f"{name}.json", directory)
    shutil.copy(TESTS / "javascript" / "vectors.mjs", directory)
    client = f"http://127.0.0.1:{server.port}/lhttp"
    (directory / "index.html").write_text(f'<!doctype html><title>vectors</title><script src="{client}.js"></script>')
    check = """
        const done = arguments[arguments.length - 1];
        (async () => {
          const read = async (name) => (await fetch(`${name}.json`)).json();
          const { checkAll } = await import("./vectors.mjs");
          const module = await import(arguments[0]);
          const vectors = [await read("messages"), await read("malformed"), await read("views")];
          vectors.push([...(await read("malformed_json")), ...(await read("malformed_protobuf"))]);
          return [checkAll(module, ...vectors), checkAll(window.lhttp, ...vectors)];
        })().then(done, (error) => done(String(error)));
    """
    count = sum(len(json.loads((directory / f"{name}.json").read_bytes())) for name in names)
    for page in everywhere(address + "/"):
        results = page.browser.execute_async_script(check, client + ".mjs")
        assert results == [{"failures": [], "count": count}] * 2, page.name
