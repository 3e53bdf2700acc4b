"""The buttons of the dashboard that mute and unmute, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from integration._server import message, open_client, recv_bytes, wait_until
from integration.test_browser import BROWSER, DRIVER, PATIENCE, By, Keys, browser, tab
from integration.test_dashboard import EDITOR, HOSTILE, Board, board, start, subscribe

__all__ = ["board", "browser", "start", "tab"]

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromium-driver are not installed")


def test_an_operator_mutes_a_connection_and_a_user(board: Callable[..., Board]) -> None:
    page = board()
    page.log_in()
    port = page.admin.server.port
    with open_client(port, "/?name=jack") as jack:
        subscribe(jack, "room.a")
        connection = page.admin.call("connections", user="jack")["connections"][0]["connection"]

        def told() -> Any:
            return page.admin.call("connection", connection=connection)

        def is_muted() -> bool:
            jack.send(message("chat", {"publish": "room.a"}))
            return b"muted" in recv_bytes(jack)[0]

        page.go("connection", connection)
        page.see("main button", "Mute")
        assert "Unmute" not in page.texts("main button:not([hidden])")
        # With the keyboard alone: the button, the duration, and Enter.
        (button,) = [each for each in page.browser.find_elements(By.CSS_SELECTOR, "main button") if each.text == "Mute"]
        button.send_keys(Keys.ENTER)
        page.see("dialog h2", "Mute the connection")
        _, seconds = page.browser.find_elements(By.CSS_SELECTOR, "dialog select")
        assert seconds.get_property("value") == "600"
        seconds.send_keys("1 hour", Keys.TAB)
        page.press("dialog button", "Mute")
        page.see(".toasts", "1 connection muted")
        page.see(".facts", "Mutedfor ")
        assert 3_500 < told()["muted"] <= 3_600
        assert told()["user_muted"] == 0
        assert is_muted()
        page.press("main button", "Unmute")
        page.see(".toasts", "1 connection no longer muted")
        wait_until(lambda: "Unmute" not in page.texts("main button:not([hidden])"), "the button to be gone", PATIENCE)
        assert not is_muted()
        page.press("main button", "Mute")
        page.find("dialog select").send_keys("The user", Keys.TAB)
        page.press("dialog button", "Mute")
        page.see(".facts", "on all connections")
        assert 590 < told()["user_muted"] <= 600
        page.press("main button", "Unmute")
        wait_until(lambda: told()["muted"] == 0, "the end of the mute", PATIENCE)
        page.go("connections", "user", "jack")
        page.press("main button", "Mute")
        assert len(page.browser.find_elements(By.CSS_SELECTOR, "dialog select")) == 1
        page.press("dialog button", "Mute")
        wait_until(lambda: told()["user_muted"], "the mute of the user", PATIENCE)
        page.go("users")
        page.see(".panel", "MutedUserFor anotherjack9 min")
        page.go("connections", "user", "jack")
        page.press("main button", "Unmute")
        wait_until(lambda: not is_muted(), "the end of the mute", PATIENCE)


def test_a_hostile_name_stays_within_the_dialog(board: Callable[..., Board]) -> None:
    page = board()
    page.log_in()
    size = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for user in HOSTILE:
            with open_client(page.admin.server.port, f"/?name={quote(user, '')}"):
                wait_until(
                    lambda user=user: page.admin.call("users")["users"] == [{"user": user, "connections": 1}], user
                )
                page.go("connection", page.admin.call("connections", user=user)["connections"][0]["connection"])
                page.see(".facts", user)
                page.press("main button", "Mute")
                page.see("dialog option", user)
                assert page.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
                page.press("dialog button", "Cancel")
                page.go("connections", "user", user)
                page.see("td", user)
                page.press("main button", "Mute")
                page.see("dialog h2 bdi", user)
                assert page.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
                page.press("dialog button", "Cancel")
            wait_until(lambda: not page.admin.call("users")["users"], "the client to be gone")
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_key_that_may_not_mute_sees_no_button(board: Callable[..., Board], tmp_path: Path) -> None:
    text = (tmp_path / "lhttp.toml").read_text("utf-8")
    watcher = '[admin.keys.editor]\nsecret_file = "editor"\nmethods = ["connections", "connection"]\n'
    (tmp_path / "lhttp.toml").write_text(text.partition("[admin.keys.editor]")[0] + watcher, "utf-8")
    page = board()
    page.log_in(EDITOR)
    with open_client(page.admin.server.port, "/?name=jack"):
        wait_until(lambda: page.admin.call("connections")["connections"], "the connection")
        page.admin.call("mute", user="jack")
        page.go("connection", page.admin.call("connections")["connections"][0]["connection"])
        page.see(".facts", "Mutedfor ")
        assert not {"Mute", "Unmute"} & set(page.texts("main button:not([hidden])"))
        page.go("connections", "user", "jack")
        page.see("td", "jack")
        assert not {"Mute", "Unmute"} & set(page.texts("main button:not([hidden])"))
