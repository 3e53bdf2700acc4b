"""
A real Firefox, driven over WebDriver BiDi: JSON over a WebSocket that the browser itself offers.

Debian's package is ``firefox-esr``. Nothing else is needed. A tab has the methods of a Selenium driver that the tests
for several browsers use. Source: https://w3c.github.io/webdriver-bidi/.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from integration._server import TIME_LIMIT, wait_until

__all__ = ["FIREFOX", "Firefox", "FirefoxTab", "start_firefox"]

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")

PATIENCE = 2 * TIME_LIMIT
"""Seconds that an answer of the browser may take."""

PREFERENCES = """
user_pref("app.update.enabled", false);
user_pref("app.normandy.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.proxy.type", 0);
"""

AT_ONCE = "function(given) { return JSON.stringify((function() { %s }).apply(null, JSON.parse(given))); }"
LATER = """
function(given) {
  return new Promise((done) => (function() { %s }).apply(null, [...JSON.parse(given), done])).then(JSON.stringify);
}
"""


class Firefox:
    """A running Firefox."""

    def __init__(self, connection: ClientConnection) -> None:
        """:param connection: a connection to where it offers BiDi."""
        self._numbers = count(1)
        self._socket = connection
        self.call("session.new", {"capabilities": {}})

    def call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Call a method of BiDi, and return its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(PATIENCE))
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str) -> FirefoxTab:
        """Open a tab, and return it when the page is there."""
        return FirefoxTab(self, url)


class FirefoxTab:
    """A tab with a page."""

    name = "firefox"

    def __init__(self, firefox: Firefox, url: str) -> None:
        self._firefox = firefox
        self._context = firefox.call("browsingContext.create", {"type": "tab"})["context"]
        firefox.call("browsingContext.navigate", {"context": self._context, "url": url, "wait": "complete"})

    @property
    def browser(self) -> FirefoxTab:
        """This."""
        return self

    def execute_script(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function, and return what it returns."""
        return self._run(AT_ONCE % script, arguments)

    def execute_async_script(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function, and return what it passes to the last of its arguments."""
        return self._run(LATER % script, arguments)

    def _run(self, function: str, arguments: tuple[Any, ...]) -> Any:
        found = self._firefox.call(
            "script.callFunction",
            {
                "functionDeclaration": function,
                "arguments": [{"type": "string", "value": json.dumps(arguments)}],
                "target": {"context": self._context},
                "awaitPromise": True,
            },
        )
        assert found["type"] == "success", found["exceptionDetails"]["text"]
        value = found["result"].get("value")
        return None if value is None else json.loads(value)

    def close(self) -> None:
        """Close it."""
        self._firefox.call("browsingContext.close", {"context": self._context})


@contextmanager
def start_firefox(profile: Path) -> Iterator[Firefox]:
    """
    Start a Firefox, and end it with all of its processes.

    :param profile: an empty directory.
    """
    assert FIREFOX is not None
    (profile / "user.js").write_text(PREFERENCES, encoding="utf-8")
    log = profile / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [FIREFOX, "--headless", "--no-remote", "--remote-debugging-port=0", "--profile", str(profile)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": str(profile), "MOZ_CRASHREPORTER_DISABLE": "1"},
            start_new_session=True,
        )
    told = profile / "WebDriverBiDiServer.json"

    def port() -> int:
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
        with suppress(FileNotFoundError, ValueError):
            found: int = json.loads(told.read_bytes())["ws_port"]
            return found
        return 0

    try:
        wait_until(lambda: port() != 0, "Firefox offers BiDi", 2 * PATIENCE)
        with connect(f"ws://127.0.0.1:{port()}/session", max_size=None, proxy=None) as connection:
            yield Firefox(connection)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
