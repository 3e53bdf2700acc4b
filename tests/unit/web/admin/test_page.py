"""lhttp_tx.web.admin.page: the files of the dashboard, and what they must not do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lhttp_tx.web.admin

STATIC = Path(lhttp_tx.web.admin.__file__).parent / "static"
FILES = sorted(STATIC.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc"
    r"|createContextualFragment"
    r"|https?://(?!www\.w3\.org/2000/svg)|localStorage\.setItem\((?!THEME)"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_has_more_than_400_lines(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_html_of_texts_or_asks_another_host(path: Path) -> None:
    assert FORBIDDEN.search(path.read_text("utf-8")) is None


def test_every_script_is_used_and_there() -> None:
    names = {path.name for path in FILES}
    text = "".join(path.read_text("utf-8") for path in FILES if path.suffix in {".js", ".html"})
    used = set(re.findall(r'from "\./([\w.]+)"', text)) | set(re.findall(r'"/static/([\w.]+)"', text))
    assert used == names - {"index.html"}


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    page = (STATIC / "index.html").read_text("utf-8")
    assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", page) == []
