"""
The output and input of the ``lhttp`` command.

Messages may come from strangers. Their text must not move the cursor, change the colours, or look like another line.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lhttp_tx.codec.message import Message
from lhttp_tx.errors import MessageTooLarge

__all__ = [
    "LineReader",
    "drop_output",
    "escaped",
    "message_json",
    "one_line",
    "printable",
    "read_body",
    "say",
    "write_body",
    "write_line",
]

_READ_SIZE = 65_536

_MAX_BODY_SIZE = 16_777_216
"""The most bytes of input for one message. This is far more than a server accepts by default."""

_MAX_LINE_SIZE = 1_048_576
"""The most bytes of a line of input. A longer line is split."""

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def _harmless(char: str) -> bool:
    return char == " " or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    """Return *text* for people. Control and direction characters, including line breaks, are replaced."""
    return (
        text
        if text.isprintable()
        else "".join(char if _harmless(char) else "\N{REPLACEMENT CHARACTER}" for char in text)
    )


def escaped(text: str) -> str:
    """
    Return *text* for programs, in one line. Backslashes, tabs and line breaks are escaped as in C, and other control
    characters by number.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_ESCAPES.get(char) or (char if _harmless(char) else _code(char)) for char in text)


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def one_line(message: Message) -> str:
    """Return the body of a message for programs, in one line; see :func:`escaped`."""
    return escaped(message.body.decode("utf-8", "replace"))


def message_json(message: Message, channel: str | None = None, position: str | None = None) -> str:
    """
    Return a message as one line of JSON.

    The keys are ``command``, ``headers`` (a list of pairs), ``binary``, and ``body``, or ``body_base64`` if the body is
    not UTF-8; and ``channel`` and ``position`` if they are given.

    :param position: the position in the history of the channel, if it is known.
    """
    found: dict[str, Any] = {} if channel is None else {"channel": channel}
    if position is not None:
        found["position"] = position
    found |= {"command": message.command, "headers": [list(pair) for pair in message.headers], "binary": message.binary}
    body = message.body
    try:
        found["body"] = body.decode("utf-8")
    except UnicodeDecodeError:
        found["body_base64"] = base64.b64encode(body).decode("ascii")
    return json.dumps(found)


def write_line(text: str) -> None:
    """
    Write a line to the standard output, and flush it.

    :raises BrokenPipeError: if the reader of the output has ended.
    """
    data = (text + "\n").encode(sys.stdout.encoding or "utf-8", "backslashreplace")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_body(body: bytes) -> None:
    """Write a body unchanged, and a line break if it does not end with one."""
    sys.stdout.buffer.write(body if not body or body.endswith(b"\n") else body + b"\n")
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Write a line about the command itself to the standard error. The text may come from a server."""
    sys.stderr.write(f"lhttp: {printable(text)}\n")
    sys.stderr.flush()


def drop_output() -> None:
    """Discard output from now on. Its reader has ended, so flushing at exit would raise an error."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


class LineReader:
    """
    Reads lines from a file descriptor in a thread, and passes each to the reactor when it is asked for.

    It uses a thread, because a reactor cannot watch an ordinary file. It reads the descriptor without a buffered
    reader, because Python would wait for that at exit.
    """

    def __init__(self, reactor: Any, descriptor: int = 0) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._wanted = threading.Semaphore(0)
        self._receiver: Callable[[str | None], None] = lambda _: None
        threading.Thread(target=self._read, daemon=True, name="lines").start()

    def take(self, receiver: Callable[[str | None], None]) -> None:
        """
        Call *receiver* in the reactor's thread with the next line, without its line break; with ``None`` after the
        last.
        """
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


def read_body(file: Path | None) -> bytes:
    """
    Return the content of *file*, or of the standard input.

    :raises MessageTooLarge: if the content has more than 16 MiB.
    :raises OSError: if it cannot be read.
    """
    if file is not None:
        with file.open("rb") as stream:
            data = stream.read(_MAX_BODY_SIZE + 1)
    else:
        if sys.stdin.isatty():
            say("reading the body from the terminal; end it with Ctrl-D")
        data = sys.stdin.buffer.read(_MAX_BODY_SIZE + 1)
    if len(data) > _MAX_BODY_SIZE:
        raise MessageTooLarge(f"the body is larger than {_MAX_BODY_SIZE} bytes")
    return data
