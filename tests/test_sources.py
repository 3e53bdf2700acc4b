"""Docstrings name sections of the manual as their sources: the sections exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PAGES = {
    "protocol document": "protocol.rst",
    "how-to about the admin side": "howto/admin.rst",
    "how-to about clusters": "howto/cluster.rst",
}

_PAGE = "|".join(PAGES).replace(" ", r"\s+")
NAMED = re.compile(rf'({_PAGE}),\s+sections?\s+("[^"]+"(?:(?:,|\s+and)\s+"[^"]+")*)')


def sections_of(page: str) -> list[str]:
    return re.findall(r"^(\S.*)\n([=~^-])\2+$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES.values())
def test_a_page_has_sections(page: str) -> None:
    assert len(sections_of(page)) > 3


def test_sections_that_docstrings_name_exist() -> None:
    named = 0
    for path in sorted((ROOT / "lhttp_tx").rglob("*.py")):
        for page, sections in NAMED.findall(path.read_text(encoding="utf-8")):
            titles = [title for title, _ in sections_of(PAGES[" ".join(page.split())])]
            for section in re.findall(r'"([^"]+?)\.?"', sections):
                wanted = " ".join(section.split())
                assert any(title == wanted or title.startswith(f"{wanted}:") for title in titles), f"{path}: {wanted}"
                named += 1
    assert named > 20


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.rst")), ids=lambda path: path.name)
def test_no_heading_stands_in_one_line_with_what_underlines_it(path: Path) -> None:
    """Sphinx shows such a line as text, and says nothing."""
    assert not re.findall(r"^\w[^=~^-]* ([=~^-])\1{3,}$", path.read_text(encoding="utf-8"), re.MULTILINE)
