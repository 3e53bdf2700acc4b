"""The walk in the page about the architecture names every call that one publication makes, in order."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from unit.transports.websocket.test_protocol import connected, frame

from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory

PAGE = Path(__file__).parent.parent / "docs/architecture.rst"
PUBLISH = "LHTTP/1.0 chat\r\npublish:room\r\n\r\nhello"
MAX_LINES = 40


def walk() -> list[tuple[str, str]]:
    """Return the modules and calls of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(".. _walk:")[2]
    block = re.search(r"\.\. code-block:: text\n\n((?:   .*\n)+)", section)
    assert block is not None
    lines = block[1].splitlines()
    assert len(lines) <= MAX_LINES, "it fits on one screen"
    return [(module, call) for module, call, *_ in map(str.split, lines)]


def test_walk_is_what_happens() -> None:
    server = Server()
    factory = LHTTPServerFactory(engine=server.engine, reactor=server.clock)
    publisher, subscriber = connected(factory), connected(factory)
    subscriber.send("LHTTP/1.0 chat\r\nsubscribe:room\r\n\r\n")
    publisher.send(PUBLISH)
    subscriber.take()
    seen: list[tuple[str, str]] = []

    def note(here: FrameType, event: str, _: Any) -> None:
        module = here.f_globals.get("__name__", "")
        if event == "call" and module.startswith("lhttp_tx."):
            seen.append((module.removeprefix("lhttp_tx."), here.f_code.co_qualname))

    data = frame(PUBLISH)
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        publisher.protocol.dataReceived(data)
    finally:
        sys.setprofile(before)
    assert subscriber.take().endswith(b"hello")
    assert seen == walk()
