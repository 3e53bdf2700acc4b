"""A parser of event streams, after the HTML standard (section "Interpreting an event stream"), for tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["Event", "Parser", "parse_events"]


@dataclass(frozen=True)
class Event:
    """
    An event as a page gets it.

    :ivar name: its type.
    :ivar data: its data.
    :ivar last_id: the id that a client which lost the stream now would send.
    """

    name: str
    data: str
    last_id: str

    @property
    def message(self) -> dict[str, Any]:
        """The message in it."""
        found: dict[str, Any] = json.loads(self.data)
        return found

    @property
    def body(self) -> str:
        """The body of the message in it."""
        found: str = self.message["BODY"]
        return found


class Parser:
    """
    Takes a stream as it comes.

    :ivar events: what was dispatched.
    :ivar last_id: the id that the client would send.
    :ivar retry: the time to come again, in milliseconds.
    :ivar comments: how many comments there were.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.last_id = ""
        self.retry: int | None = None
        self.comments = 0
        self._rest = ""
        self._bytes = b""
        self._id = ""
        self._name = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> None:
        """Take bytes."""
        self._bytes += data
        cut = len(self._bytes)
        while cut:
            try:
                text = self._bytes[:cut].decode("utf-8")
            except UnicodeDecodeError as error:
                if len(self._bytes) - error.start > 3:
                    raise
                cut = error.start
            else:
                break
        else:
            return
        self._bytes = self._bytes[cut:]
        self._rest += text
        if self._rest.endswith("\r"):  # the half of a line end, perhaps
            return
        *lines, self._rest = self._rest.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            self._take(line)

    def _take(self, line: str) -> None:
        if not line:
            self.last_id = self._id
            if self._data:
                self.events.append(Event(self._name or "message", "\n".join(self._data), self.last_id))
            self._name, self._data = "", []
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments += 1
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry" and value.isdigit():
            self.retry = int(value)


def parse_events(data: bytes) -> list[Event]:
    """Return the events of a stream."""
    parser = Parser()
    parser.feed(data)
    return parser.events
