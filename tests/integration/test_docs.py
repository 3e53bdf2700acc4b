"""
README.md and docs/ say what is true: every block that can be run is run, against a real server.

How blocks are marked stands in ``_docs.py``.
"""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from html import unescape
from pathlib import Path

import pytest

import lhttp_tx
from integration._docs import (
    ALONE,
    ELSEWHERE,
    ROOT,
    Block,
    Page,
    Process,
    abnf_patterns,
    find_blocks,
    free_port,
    wait_for_port,
)
from lhttp_tx.client.command.admin import admin_command
from lhttp_tx.client.command.cli import lhttp
from lhttp_tx.client.command.token import token_command
from lhttp_tx.codec.channels import split_channels
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import parse
from lhttp_tx.codec.multipart import parse_offsets
from lhttp_tx.config import Config
from lhttp_tx.errors import LHTTPError
from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.settings import declared
from lhttp_tx.upstream.targets import parse_upstream

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.rst"))]
KINDS = {
    *("abnf", "append", "background", "browser", "file", "install", "needs", "node", "output", "php", "python"),
    *("receive", "send", "server", "shell", "skip", "start", "stop", "type"),
}
BLOCKS = [block for page in PAGES for block in find_blocks(page)]
RUNNABLE = {block.page: None for block in BLOCKS if block.kind and block.kind not in ELSEWHERE}

FOREIGN_OPTIONS = {
    *("--data-binary", "--experimental-websocket", "--insecure", "--pidfile", "--unix-socket"),
    *("--build", "--from-file", "--python", "--reactor", "--set"),
    "--retry-connrefused",
    *("--kill-whom", "--logfile", "--retry", "--retry-delay", "--rootdir", "--signal"),
    "--all",  # of lhttp check-config, which does without click
    "--figures",  # of the cost fuzzer
    *("--from-json", "--json", "--list", "--peers", "--quick", "--rounds", "--scenario", "--svg"),  # of the benchmarks
}
"""Options of other programs that the texts mention."""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """Return what runs the blocks of a page, and stop what it has started."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    runner = Page(tmp_path)
    yield runner
    runner.close()


@pytest.mark.parametrize("name", RUNNABLE)
def test_blocks_of_a_page_run_as_they_stand(name: str, page: Page) -> None:
    for block in BLOCKS:
        if block.page == name and block.kind not in ELSEWHERE:
            try:
                page.run(block)
            except Exception as error:
                error.add_note(f"at {block}: {block.kind} {block.argument}")
                raise


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_has_a_mark(block: Block) -> None:
    assert block.kind in KINDS, f"{block}: write '.. test: KIND' above the block, or '.. test: skip REASON'"
    assert block.kind != "skip" or block.argument, f"{block}: say why it is not run"
    assert block.kind != "browser" or block.argument, f"{block}: say what it writes to the console"
    assert block.text or block.kind in ALONE


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_page_has_no_block_that_escapes_the_tests(path: Path) -> None:
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        literal = line.rstrip().endswith("::") and not line.lstrip().startswith("..")
        assert path.suffix == ".md" or not literal, f"{path.name}:{number}: use code-block, with a mark above it"


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("CI"), reason="makes a fresh environment; set CI=true to run it")
def test_command_one_of_the_readme_starts_a_server_in_a_fresh_environment(tmp_path: Path) -> None:
    block = next(block for block in BLOCKS if block.page == "README.md" and block.kind == "install")
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "_build"))
    port = free_port()
    install, _, start = block.text.strip().replace("8081", str(port)).rpartition("&& ")
    subprocess.run(["bash", "-c", install.removesuffix("&& ")], cwd=clone, check=True, timeout=600)
    with Process(["bash", "-c", "exec " + start], clone) as process:
        wait_for_port(port, process)


def test_sphinx_builds_the_docs_without_a_warning(built_docs: Path) -> None:
    assert (built_docs / "index.html").is_file()


def test_options_reference_names_every_option(built_docs: Path) -> None:
    text = unescape(re.sub(r"<[^>]*>", "", (built_docs / "reference/options.html").read_text("utf-8")))
    assert {option for option in _server_options() if option not in text} == set()


def test_reference_describes_every_module() -> None:
    pages = "".join(path.read_text("utf-8") for path in (ROOT / "docs/reference").glob("*.rst"))
    modules = {module.name for module in pkgutil.walk_packages(lhttp_tx.__path__, "lhttp_tx.")}
    assert modules - set(re.findall(r"automodule:: (\S+)", pages)) == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_options_that_a_page_mentions_exist(path: Path) -> None:
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text("utf-8")))
    assert mentioned - _options() - FOREIGN_OPTIONS == set()


@pytest.mark.parametrize("page", ["howto/operate.rst", "howto/admin.rst"])
def test_page_says_what_to_do_about_each_alert(page: str) -> None:
    rules = re.findall(r"- alert: (\w+)", (ROOT / "examples/prometheus/alerts.yml").read_text("utf-8"))
    rows = re.findall(r"(?m)^   \* - (``LHTTP\w+``.*)$", (ROOT / "docs" / page).read_text("utf-8"))
    assert re.findall(r"``(\w+)``", " ".join(rows)) == rules


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_fields_that_a_page_mentions_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    for kind in (Config, Limits):
        named = re.findall(rf"\b{kind.__name__}\(([^()]*(?:\([^()]*\)[^()]*)*)\)", text)
        mentioned = {name for arguments in named for name in re.findall(r"(?:^|, )\s*(\w+)=", arguments)}
        assert mentioned - {field.name for field in fields(kind)} == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_page_installs_from_an_index_what_may_not_be_there(path: Path) -> None:
    assert not re.search(r"lhttp[_-]tx\[|pip install '?lhttp", path.read_text("utf-8"))


@pytest.mark.parametrize("module", ["lhttp_tx.errors", "lhttp_tx.engine.processors", "lhttp_tx.testing"])
def test_examples_in_docstrings_are_true(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted and not result.failed


MESSAGES = [
    b"LHTTP/1.0 chat\r\ncontent-type:json\r\npublish:room.a room.b\r\n\r\n{}",
    b'LHTTP/1.0 c\r\n\r\n{"a":1}',
    b"LHTTP/1.0 c\r\n",
    b"LHTTP/1.0 c\r\n\r\n",
    b"LHTTP/1.0 c\r\na:\r\n",
    b"LHTTP/1.0 c\r\na: b : \tc \r\n\r\n\x00\xff",
    "LHTTP/1.0 c\r\na:é€😀\r\n\r\n".encode(),
    b"LHTTP/1.0 c\r\na:b\tc\r\n\r\n",
    b"LHTTP/1.0 " + b"c" * 64 + b"\r\n\r\n",
    b"LHTTP/1.0 " + b"c" * 65 + b"\r\n\r\n",
    b"",
    b"\r\n\r\n",
    b"LHTTP/1.0\r\n\r\n",
    b"LHTTP/1.0 \r\n\r\n",
    b"LHTTP/1.1 c\r\n\r\n",
    b"lhttp/1.0 c\r\n\r\n",
    b"LHTTP/1.0  c\r\n\r\n",
    b"LHTTP/1.0 c d\r\n\r\n",
    b"LHTTP/1.0 c",
    b"LHTTP/1.0 c\r\na:b",
    b"LHTTP/1.0 c\r\na:b\n\r\n",
    b"LHTTP/1.0 c\na:b\r\n\r\n",
    b"LHTTP/1.0 c\r\na:b\rc\r\n\r\n",
    b"LHTTP/1.0 c\r\nab\r\n\r\n",
    b"LHTTP/1.0 c\r\n:b\r\n\r\n",
    b"LHTTP/1.0 c\r\na b:c\r\n\r\n",
    b"LHTTP/1.0 c\r\n\xc3\xa9:c\r\n\r\n",
    b"LHTTP/1.0 c\r\na:\x7f\r\n\r\n",
    b"LHTTP/1.0 c\r\na:\x00\r\n\r\n",
    b"LHTTP/1.0 c\r\na:\xff\r\n\r\n",
    b"LHTTP/1.0 c\r\na:\xed\xa0\x80\r\n\r\n",
    b"LHTTP/1.0 c\r\na:\xc0\x80\r\n\r\n",
    b"LHTTP/1.0 c\r\na:\xf4\x90\x80\x80\r\n\r\n",
]


HEADER_VALUES = [
    ("channel-list", "a"),
    ("channel-list", "room.a room.b \t é.€"),
    ("channel-list", "a:b x$/y_*>"),
    ("channel-list", ""),
    ("channel-list", "a..b"),
    ("channel-list", ".a"),
    ("channel-list", "a."),
    ("channel-list", "a b."),
    ("offsets", "0"),
    ("offsets", "0 14\t 20"),
    ("offsets", "0 9999999999"),
    ("offsets", "0 10000000000"),
    ("offsets", ""),
    ("offsets", "0,14"),
    ("offsets", "0 0x10"),
    ("offsets", "0 -1"),
    ("offsets", "0 ٣"),
    ("upstream", "GET http://backend.example"),
    ("upstream", "POST https://backend.example:8000/record/x?a=b&c[]=%7C|d"),
    ("upstream", "PUT http://[::1]:80/"),
    ("upstream", "PATCH http://a/a;b=c,d:@!$'()*+"),
    ("upstream", "DELETE http://127.0.0.1/?"),
    ("upstream", "get http://backend.example/"),
    ("upstream", "HEAD http://backend.example/"),
    ("upstream", "POST  http://backend.example/"),
    ("upstream", "POST ftp://backend.example/"),
    ("upstream", "POST HTTP://backend.example/"),
    ("upstream", "POST http://backend.example:0/"),
    ("upstream", "POST http://backend.example:/"),
    ("upstream", "POST http://user@backend.example/"),
    ("upstream", "POST http://backend.example/#x"),
    ("upstream", "POST http://backend.example/%2"),
    ("upstream", "POST http://backend.example/a b"),
    ("upstream", "POST http://backend.example\\x"),
    ("upstream", "POST http://-a/"),
    ("upstream", "POST http:///"),
    ("upstream", "POST"),
]

READERS: dict[str, Callable[[str], object]] = {
    "channel-list": lambda value: split_channels([value]),
    "offsets": parse_offsets,
    "upstream": parse_upstream,
}


@pytest.fixture(scope="module")
def grammar() -> dict[str, re.Pattern[bytes]]:
    """Return the grammar of the protocol document."""
    return abnf_patterns("\n".join(block.text for block in BLOCKS if block.kind == "abnf"))


@pytest.mark.parametrize("data", MESSAGES)
def test_grammar_and_parser_agree_on_messages(grammar: dict[str, re.Pattern[bytes]], data: bytes) -> None:
    assert (grammar["message"].fullmatch(data) is not None) == _is_taken(lambda: parse(data, binary=True))


@pytest.mark.parametrize(("rule", "value"), HEADER_VALUES)
def test_grammar_and_parser_agree_on_values(grammar: dict[str, re.Pattern[bytes]], rule: str, value: str) -> None:
    assert (grammar[rule].fullmatch(value.encode()) is not None) == _is_taken(lambda: READERS[rule](value))


def _is_taken(read: Callable[[], object]) -> bool:
    try:
        read()
    except LHTTPError:
        return False
    return True


def _server_options() -> set[str]:
    names = [str(row[0]) for kind in ("optParameters", "optFlags") for row in declared(Options, kind, 1)]
    methods = [name.removeprefix("opt_").replace("_", "-") for name in dir(Options) if name.startswith("opt_")]
    return {f"--{name}" for name in (*names, *methods)}


def _options() -> set[str]:
    """Return the options of ``twistd lhttp`` and of the command ``lhttp``."""
    groups = (lhttp, admin_command, token_command)
    commands = [command for group in groups for command in group.commands.values()]
    subcommands = [option for command in commands for found in command.params for option in found.opts]
    return _server_options().union(subcommands)


@pytest.fixture(scope="module")
def built_docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the docs as HTML."""
    pytest.importorskip("sphinx", reason="Sphinx is not installed (it comes with the extra 'docs')")
    target = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return target
