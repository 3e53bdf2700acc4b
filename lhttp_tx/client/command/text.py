"""
What the ``lhttp`` command writes, and the lines it reads.

A message comes from a stranger: nothing in it may move the cursor, change the colours, or pass for another line.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import unicodedata
from collections.abc import Callable
from typing import Any

from lhttp_tx.message import Message

__all__ = ["LineReader", "drop_output", "escaped", "message_json", "printable", "say", "write_line"]

_READ_SIZE = 65_536

_MAX_LINE_SIZE = 1_048_576
"""Bytes of one line of input; a longer one is cut there."""

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def _harmless(char: str) -> bool:
    return char == " " or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    """Return *text* for people: with a replacement for each control and direction character, line breaks included."""
    return (
        text
        if text.isprintable()
        else "".join(char if _harmless(char) else "\N{REPLACEMENT CHARACTER}" for char in text)
    )


def escaped(text: str) -> str:
    """Return *text* in one line for programs: backslash, tab and line ends as in C, other controls by number."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_ESCAPES.get(char) or (char if _harmless(char) else _code(char)) for char in text)


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def message_json(message: Message, channel: str | None = None) -> str:
    """
    Return a message as one line of JSON.

    The body is in ``body``, or in ``body_base64`` if it is not UTF-8. ``headers`` is a list of pairs.
    """
    found: dict[str, Any] = {} if channel is None else {"channel": channel}
    found |= {"command": message.command, "headers": [list(pair) for pair in message.headers], "binary": message.binary}
    body = message.body
    try:
        found["body"] = body.decode("utf-8")
    except UnicodeDecodeError:
        found["body_base64"] = base64.b64encode(body).decode("ascii")
    return json.dumps(found)


def write_line(text: str) -> None:
    """
    Write a line to the standard output, now.

    :raises BrokenPipeError: if nobody reads it any more.
    """
    data = (text + "\n").encode(sys.stdout.encoding or "utf-8", "backslashreplace")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Write a line about the command itself to the standard error; what a server says may be a part of it."""
    sys.stderr.write(f"lhttp: {printable(text)}\n")
    sys.stderr.flush()


def drop_output() -> None:
    """Write to nowhere from now on: the reader has gone, and flushing at exit would complain of it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


class LineReader:
    """
    Reads lines from a file descriptor in a thread, and hands each to the reactor when the one before was dealt with.

    A thread, because a reactor cannot watch an ordinary file; it reads the descriptor itself, because Python waits
    for buffered readers at exit.
    """

    def __init__(self, reactor: Any, descriptor: int = 0) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._wanted = threading.Semaphore(0)
        self._receiver: Callable[[str | None], None] = lambda _: None
        threading.Thread(target=self._read, daemon=True, name="lines").start()

    def take(self, receiver: Callable[[str | None], None]) -> None:
        """Call *receiver* in the reactor's thread with the next line, without its end; ``None`` after the last."""
        self._receiver = receiver
        self._wanted.release()

    def _read(self) -> None:
        rest = b""
        while True:
            line, found, after = rest.partition(b"\n")
            if found or len(rest) > _MAX_LINE_SIZE:
                if not found:
                    line, after = rest[:_MAX_LINE_SIZE], rest[_MAX_LINE_SIZE:]
                rest = after
                self._hand_over(line)
                continue
            try:
                data = os.read(self._descriptor, _READ_SIZE)
            except OSError:
                data = b""
            if not data:
                break
            rest += data
        if rest:
            self._hand_over(rest)
        self._wanted.acquire()
        self._call(None)

    def _hand_over(self, line: bytes) -> None:
        self._wanted.acquire()
        self._call(line.removesuffix(b"\r").decode("utf-8", "replace"))

    def _call(self, line: str | None) -> None:
        self._reactor.callFromThread(lambda: self._receiver(line))
