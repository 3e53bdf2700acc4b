"""
What the tests of README, docs/ and examples/ share: finding marked blocks, running them, and reading ABNF.

Each code block of README.md and docs/ has a mark in the comment above it, invisible to readers::

    .. test: KIND ARGUMENT                 <!-- test: KIND ARGUMENT -->

    .. code-block:: python                 ```python
        ...

A page is run from top to bottom in one directory:

=================== ==================================================================================
file NAME           write the block to NAME
append NAME         write the block behind what is in NAME
shell               run the block with bash; it must succeed
python              run the block as a script; it must succeed
php                 run the block with php
node                run the block with bash, for Node; the package lhttp-tx is installed in the directory
server PORT...      start the command in the block and wait until it listens; ``unix:PATH`` for a socket
start PORT: COMMAND the same without a block
stop                stop the servers
background TEXT     start the command in the block and wait until it has printed TEXT
type TEXT           type a line into the command in the background
browser TEXT        a page with the block in it writes TEXT to the console; test_browser.py sees to it
output              what the block before has printed; ``output background`` for the other one
send NAME           send the block as a WebSocket message, as the client NAME
receive NAME        the message that this client gets next
install             what command one does; only its last part, the server, is started with the page
abnf                grammar, tested by itself
needs MODULE        go on only if Python has this module; the page is run up to here otherwise
skip REASON         not run
=================== ==================================================================================

A mark without a block (``needs``, ``start``, ``stop``, ``type``) stands alone.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO

import pytest
from websockets.sync.client import ClientConnection, connect

__all__ = [
    "ALONE",
    "ELSEWHERE",
    "ROOT",
    "Block",
    "Page",
    "Process",
    "abnf_patterns",
    "environment",
    "find_blocks",
    "free_port",
    "wait_for_port",
]

ROOT = Path(__file__).resolve().parents[2]
ALONE = frozenset({"needs", "start", "stop", "type"})
ELSEWHERE = frozenset({"abnf", "browser", "skip"})
"""Kinds of blocks that are not run with their page."""

_ANYTHING = re.escape("…")
"""In a message that is received: what is another one each time."""

_PATIENCE = 60.0
_PORTS = re.compile(r"\b(?:4222|4318|8000|8080|8081|8082|8222|8443|9081|9082)\b")
_RST_MARK = re.compile(r"\.\. test: (?P<kind>[a-z]+) ?(?P<argument>.*)$")
_MARKDOWN_MARK = re.compile(r"<!-- test: (?P<kind>[a-z]+) ?(?P<argument>.*?) ?-->$")
_RST_BLOCK = re.compile(r"(?P<indent> *)\.\. (?P<directive>code-block|literalinclude):: *(?P<argument>.*)$")


@dataclass(frozen=True, slots=True)
class Block:
    """
    A block of a page, or a mark that stands alone.

    :ivar kind: what to do with it; empty if the block has no mark.
    """

    page: str
    line: int
    kind: str = ""
    argument: str = ""
    language: str = ""
    text: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def find_blocks(path: Path) -> list[Block]:
    """Return the blocks and marks of a page, in order."""
    finder = _markdown_blocks if path.suffix == ".md" else _rst_blocks
    return list(finder(path, path.read_text("utf-8").split("\n")))


def _markdown_blocks(path: Path, lines: list[str]) -> Iterator[Block]:
    page = path.relative_to(ROOT).as_posix()
    mark: re.Match[str] | None = None
    numbered = iter(enumerate(lines, 1))
    for number, line in numbered:
        if found := _MARKDOWN_MARK.match(line):
            mark = found
            if found["kind"] in ALONE:
                yield Block(page, number, found["kind"], found["argument"])
                mark = None
        elif line.startswith("```"):
            text = []
            for _, inner in numbered:
                if inner.startswith("```"):
                    break
                text.append(inner)
            kind, argument = (mark["kind"], mark["argument"]) if mark else ("", "")
            yield Block(page, number, kind, argument, line[3:].strip(), "\n".join(text) + "\n")
            mark = None
        elif line.strip():
            mark = None


def _rst_blocks(path: Path, lines: list[str]) -> Iterator[Block]:
    page = path.relative_to(ROOT).as_posix()
    mark: re.Match[str] | None = None
    for number, line in enumerate(lines, 1):
        if found := _RST_MARK.match(line.strip()):
            mark = found
            if found["kind"] in ALONE:
                yield Block(page, number, found["kind"], found["argument"])
                mark = None
        elif block := _RST_BLOCK.match(line):
            if block["directive"] == "literalinclude":
                language, text = "", (path.parent / block["argument"]).read_text("utf-8")
            else:
                language, text = block["argument"], _indented(lines[number:], len(block["indent"]))
            kind, argument = (mark["kind"], mark["argument"]) if mark else ("", "")
            yield Block(page, number, kind, argument, language, text)
            mark = None
        elif line.strip():
            mark = None


def _indented(lines: list[str], indent: int) -> str:
    block = []
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        block.append(line)
    while block and (not block[0].strip() or block[0].strip().startswith(":")):
        block.pop(0)
    return textwrap.dedent("\n".join(block)).strip("\n") + "\n"


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment() -> dict[str, str]:
    """Return the environment of this process with the programs of its Python in front."""
    programs = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LHTTP_", "COV_"))}
    return {**kept, "PATH": programs + os.pathsep + os.environ["PATH"], "PYTHONUNBUFFERED": "1"}


def wait_for_port(address: str | int, process: Process) -> None:
    """Return when somebody listens on a TCP port, or on ``unix:PATH``; fail if *process* ends before."""
    path = process.directory / str(address).removeprefix("unix:")
    for _ in process.moments(f"listen on {address}"):
        with socket.socket(socket.AF_UNIX if str(address).startswith("unix:") else socket.AF_INET) as probe:
            try:
                probe.connect(str(path) if probe.family == socket.AF_UNIX else ("127.0.0.1", int(address)))
            except OSError:
                continue
            return


class Process:
    """A program that runs beside the test, with its output in a file."""

    def __init__(self, command: list[str], directory: Path, **changes: str) -> None:
        """:param changes: to the environment."""
        self.directory = directory
        self.command = shlex.join(command)
        self._output = directory / f".output-{time.monotonic_ns()}"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env={**environment(), **changes},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> int:
        """Return its exit status once it has ended."""
        return self._process.wait(_PATIENCE)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text("utf-8", "replace")

    def moments(self, what: str) -> Iterator[None]:
        """Go on for as long as one may wait for *what*; then fail."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            has_ended = self._process.poll() is not None  # what it has printed is complete then
            yield
            assert not has_ended, f"{self.command} ended and did not {what}:\n{self.output}"
            time.sleep(0.02)
        pytest.fail(f"{self.command} did not {what}:\n{self.output}")

    def wait_for_output(self, text: str) -> None:
        """Return when it has printed *text*."""
        for _ in self.moments(f"print {text!r}"):
            if text in self.output:
                return

    def type(self, line: str) -> None:
        """Write a line to its standard input."""
        stdin: IO[bytes] | None = self._process.stdin
        assert stdin is not None
        stdin.write(line.encode() + b"\n")
        stdin.flush()

    def stop(self) -> None:
        """Ask it to end, and fail if it does not, or has printed a traceback."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        finally:
            self._process.kill()
            if self._process.stdin is not None:
                self._process.stdin.close()
        assert "Traceback" not in self.output, self.output

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()


@dataclass
class Page:
    """Runs the blocks of one page."""

    directory: Path
    printed: str = ""
    servers: list[Process] = field(default_factory=list)
    background: Process | None = None
    clients: dict[str, ClientConnection] = field(default_factory=dict)
    ports: dict[str, str] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)

    def run(self, block: Block) -> None:
        """Do what the mark of *block* says."""
        getattr(self, "_" + block.kind)(block.argument, self._here(block.text))

    def close(self) -> None:
        """Stop what runs still."""
        self._open.close()
        if self.background is not None:
            self.background.stop()
        self._stop("", "")

    def _here(self, text: str) -> str:
        """Return *text* with this machine's free ports and this environment's programs."""
        text = _PORTS.sub(lambda match: self.ports.setdefault(match[0], str(free_port())), text)
        return text.replace(".venv/bin/", f"{Path(sys.executable).parent}/")

    def _file(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def _append(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(path.read_text("utf-8") + "\n\n" + text, "utf-8")

    def _shell(self, _: str, text: str) -> None:
        self._call(["bash", "-euo", "pipefail", "-c", text])

    def _python(self, _: str, text: str) -> None:
        self._call([sys.executable, "-c", text])

    def _php(self, _: str, text: str) -> None:
        php = shutil.which("php")
        if php is None:
            pytest.skip("php is not installed: the page was run up to its first PHP block")
        self._call([php, "-r", text.removeprefix("<?php")])

    def _needs(self, module: str, _: str) -> None:
        if find_spec(module) is None:
            pytest.skip(f"{module} is missing: the page was run up to what needs it")

    def _node(self, _: str, text: str) -> None:
        node = shutil.which("node")
        version = int(subprocess.check_output([node, "-p", "parseInt(process.versions.node)"])) if node else 0
        if version < 20:
            pytest.skip("Node 20 is not installed: the page was run up to its first block for Node")
        package = self.directory / "node_modules" / "lhttp-tx"
        if not package.exists():
            package.parent.mkdir()
            package.symlink_to(ROOT / "lhttp_tx" / "web" / "static")
        options = "export NO_COLOR=1 NODE_OPTIONS=--experimental-websocket\n" if version < 22 else "export NO_COLOR=1\n"
        self._call(["bash", "-euo", "pipefail", "-c", options + text])

    def _call(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env={  # the defaults, with free ports
                **environment(),
                "LHTTP_URL": self._here("ws://127.0.0.1:8081/"),
                "LHTTP_ADMIN_URL": self._here("http://127.0.0.1:9081"),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.printed = done.stdout.decode("utf-8", "replace")
        assert done.returncode == 0, f"{command[-1]}\n{self.printed}\n{done.stderr.decode('utf-8', 'replace')}"

    def _server(self, addresses: str, text: str) -> None:
        command = " ".join(line.rstrip("\\").strip() for line in text.strip().split("\n"))
        process = Process(shlex.split(command), self.directory)
        self.servers.append(process)
        for address in self._here(addresses or "8081").split():
            wait_for_port(address, process)

    def _start(self, argument: str, _: str) -> None:
        addresses, _, command = argument.partition(": ")
        self._server(addresses, self._here(command))

    def _install(self, _: str, text: str) -> None:
        command = text.strip().rpartition("&& ")[2]
        if "twistd" in command:
            self._server("", command)

    def _stop(self, _: str, __: str) -> None:
        servers, self.servers = self.servers, []
        for server in servers:
            server.stop()

    def _background(self, text: str, command: str) -> None:
        if self.background is not None:
            self.background.stop()
        self.background = Process(["bash", "-c", "exec " + command.strip()], self.directory)
        self.background.wait_for_output(text)

    def _type(self, line: str, _: str) -> None:
        assert self.background is not None
        self.background.type(line)

    def _output(self, whose: str, text: str) -> None:
        if whose == "background":
            assert self.background is not None
            for _ in self.background.moments(f"print {text!r}"):
                if _lines(self.background.output) == _lines(text):
                    return
        assert _lines(self.printed) == _lines(text), f"it printed {self.printed!r}, not {text!r}"

    def _send(self, name: str, text: str) -> None:
        self._client(name).send(_message(text))

    def _receive(self, name: str, text: str) -> None:
        message = self._client(name).recv(timeout=_PATIENCE)
        expected = re.escape(_message(text)).replace(_ANYTHING, r"[^\r\n]+")
        assert re.fullmatch(expected, str(message)), f"{name} got {message!r}"

    def _client(self, name: str) -> ClientConnection:
        if name not in self.clients:
            self.clients[name] = self._open.enter_context(connect(self._here("ws://127.0.0.1:8081/")))
        return self.clients[name]


def _lines(text: str) -> list[str]:
    return text.rstrip().splitlines()


def _message(text: str) -> str:
    """
    Return the message that a block shows.

    Its lines end in CRLF, those of the body too, except the last; a head alone is followed by the blank line.
    """
    head, blank, body = text.rstrip("\n").partition("\n\n")
    return head.replace("\n", "\r\n") + "\r\n\r\n" + (body.replace("\n", "\r\n") if blank else "")


# ABNF (RFC 5234 with the case-sensitive strings of RFC 7405), as regular expressions of bytes

_TOKEN = re.compile(
    r"(?P<rule>[A-Za-z][A-Za-z0-9-]*)"
    r'|(?P<sensitive>%s"[^"]*")|(?P<insensitive>"[^"]*")'
    r"|%x(?P<number>[0-9A-Fa-f]+(?:-[0-9A-Fa-f]+|(?:\.[0-9A-Fa-f]+)+)?)"
    r"|(?P<repeat>[0-9]*\*[0-9]*|[0-9]+)|(?P<sign>[/()\[\]])|(?P<space>\s+|;[^\n]*)"
)

_CORE = {
    "ALPHA": b"[A-Za-z]",
    "CR": rb"\r",
    "CRLF": rb"\r\n",
    "DIGIT": b"[0-9]",
    "HEXDIG": b"[0-9A-Fa-f]",
    "HTAB": rb"\t",
    "LF": rb"\n",
    "OCTET": rb"[\x00-\xff]",
    "SP": b" ",
    "VCHAR": b"[!-~]",
}


def abnf_patterns(grammar: str) -> dict[str, re.Pattern[bytes]]:
    """
    Return a pattern of bytes for each rule of *grammar*.

    :raises ValueError: if it is not ABNF, or a rule is not regular or not defined.
    """
    definitions: dict[str, str] = {}
    for line in grammar.split("\n"):
        name, equals, elements = line.partition("=")
        if line[:1].isalpha() and equals:
            definitions[name.strip()] = elements
        elif line.strip() and not line.lstrip().startswith(";"):
            definitions[list(definitions)[-1]] += "\n" + line
    rules = dict(_CORE)
    for name in definitions:
        _resolve(name, definitions, rules, ())
    return {name: re.compile(rules[name], re.DOTALL) for name in definitions}


def _resolve(name: str, definitions: dict[str, str], rules: dict[str, bytes], above: tuple[str, ...]) -> bytes:
    if name not in rules:
        if name in above or name not in definitions:
            raise ValueError(f"rule {name} is " + ("not regular" if name in above else "not defined"))
        rules[name] = b"(?:" + _translate(definitions[name], definitions, rules, (*above, name)) + b")"
    return rules[name]


def _translate(elements: str, definitions: dict[str, str], rules: dict[str, bytes], above: tuple[str, ...]) -> bytes:
    result, position, repeat = b"", 0, b""
    stack: list[tuple[bytes, bytes]] = []
    while position < len(elements):
        token = _TOKEN.match(elements, position)
        if token is None:
            raise ValueError(f"not ABNF: {elements[position : position + 40]!r}")
        position = token.end()
        kind, text = token.lastgroup, token[0]
        if kind == "space":
            continue
        if kind == "repeat":
            low, star, high = text.partition("*")
            repeat = f"{{{low or 0},{high}}}".encode() if star else f"{{{low}}}".encode()
            continue
        if kind == "sign" and text in "([":
            stack.append((result, repeat))
            result, repeat = b"", b""
            continue
        if kind == "sign" and text == "/":
            result += b"|"
            continue
        if kind == "sign":
            inner, (result, repeat) = result, stack.pop()
            piece = b"(?:" + inner + b")" + (b"?" if text == "]" else b"")
        elif kind == "rule":
            piece = _resolve(text, definitions, rules, above)
        elif kind == "number":
            piece = _number(token["number"])
        else:
            piece = re.escape(text.removeprefix("%s")[1:-1].encode())
            piece = b"(?:" + piece + b")" if kind == "sensitive" else b"(?i:" + piece + b")"
        result += (b"(?:" + piece + b")" + repeat) if repeat else piece
        repeat = b""
    return result


def _number(text: str) -> bytes:
    low, dash, high = text.partition("-")
    if dash:
        return b"[\\x%02x-\\x%02x]" % (int(low, 16), int(high, 16))
    return b"".join(b"\\x%02x" % int(value, 16) for value in text.split("."))
