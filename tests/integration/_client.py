"""What the tests of the client and of the ``lhttp`` command share: the command as a process, and a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from integration._docs import Process, environment
from integration._server import TIME_LIMIT, script

__all__ = ["PROLOGUE", "Terminal", "lhttp", "on_terminal", "run_program", "start_lhttp", "url_of"]

_CODES = re.compile(r"\x1b(?:\[[0-9;?>]*[a-zA-Z]|[()][0AB]|[=>])")


PROLOGUE = """
import sys
from pathlib import Path
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater, react
from lhttp_tx.client import *

def states(state, reason):
    print(state.value, flush=True)

"""
"""What the programs begin with that tests of the client run."""


def url_of(port: int) -> str:
    """Return the URL of a server on this machine."""
    return f"ws://127.0.0.1:{port}/"


def run_program(body: str, *arguments: object) -> list[str]:
    """Run ``async def main(reactor, ...)`` and return the lines that it prints; fail if it fails or logs."""
    code = PROLOGUE + body + "\nreact(main, sys.argv[1:])\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=3 * TIME_LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def lhttp(*arguments: object, input: str | bytes = b"", **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command; *changes* are to the environment."""
    done = subprocess.run(
        [script("lhttp"), *map(str, arguments)],
        input=input.encode() if isinstance(input, str) else input,
        env={**environment(), **changes},
        capture_output=True,
        timeout=6 * TIME_LIMIT,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def start_lhttp(directory: Path, *arguments: object, **changes: str) -> Process:
    """Start the command; its output, both kinds of it, is in a file."""
    return Process([script("lhttp"), *map(str, arguments)], directory, **changes)


def on_terminal(program: str, *arguments: object) -> list[str]:
    """
    Return what runs *program* with the terminal that is its standard input as its own, which it can lose.

    A fork of this process could not do it: other tests have left threads in it.
    """
    code = (
        "import os, fcntl, termios, sys; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", code, program, *map(str, arguments)]


class Terminal:
    """
    The command on a terminal of its own.

    It answers where the cursor is, as a terminal does when it is asked, and keeps what was written, without the codes.
    """

    def __init__(self, *arguments: object, **changes: str) -> None:
        self.raw = ""
        self._fd, slave = pty.openpty()
        try:
            self._process = subprocess.Popen(
                on_terminal(script("lhttp"), *arguments),
                env={**environment(), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", **changes},
                stdin=slave,
                stdout=slave,
                stderr=slave,
            )
        finally:
            os.close(slave)
        self.status: int | None = None

    @property
    def text(self) -> str:
        """What was written, without the codes that move and colour."""
        return _CODES.sub("", self.raw)

    def wait_for(self, text: str) -> None:
        """Return when *text* has been written."""
        end = time.monotonic() + TIME_LIMIT
        while text not in self.text:
            assert time.monotonic() < end and self.status is None, f"{text!r} is not on the terminal:\n{self.text}"
            self._read()

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(50):
            return
        try:
            data = os.read(self._fd, 65_536).decode("utf-8", "replace")
        except OSError:  # Linux says so when the other side has gone
            data = ""
        if not data:
            self.status = self._process.wait(TIME_LIMIT)
        if "\x1b[6n" in data:
            os.write(self._fd, b"\x1b[1;1R")
        self.raw += data

    def type(self, text: str) -> None:
        """Press keys; Enter is ``\\r``."""
        os.write(self._fd, text.encode())

    def wait_for_end(self) -> int:
        """Return the exit status."""
        end = time.monotonic() + TIME_LIMIT
        while self.status is None:
            assert time.monotonic() < end, f"it goes on:\n{self.text}"
            self._read()
        return self.status

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, where: TracebackType | None) -> None:
        if self.status is None:
            self._process.kill()
            self._process.wait()
        os.close(self._fd)
