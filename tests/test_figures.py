"""The figures in the pages about security and production are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from twisted.web.http import HTTPChannel

from lhttp_tx.bus.nats import interest
from lhttp_tx.codec import codes
from lhttp_tx.config import Config
from lhttp_tx.engine import conversation
from lhttp_tx.guard import admission, descriptors, heads
from lhttp_tx.history import pages, turns
from lhttp_tx.transports.websocket.fragments import LEAST_FRAGMENT
from lhttp_tx.transports.websocket.handshake import MAX_HEADERS
from lhttp_tx.transports.websocket.opening import HANDSHAKE_SIZE
from lhttp_tx.twistd.options import Options
from lhttp_tx.web.site import LHTTPSite

DOCS = Path(__file__).parent.parent / "docs"
WORDS = {"one": 1, "three": 3}


def rows(page: str) -> list[list[str]]:
    """Return the rows of a page's tables: the text of each cell."""
    text = (DOCS / f"{page}.rst").read_text(encoding="utf-8")
    found = []
    for row in re.findall(r"^   \* - .*(?:\n     .*)*", text, re.MULTILINE):
        cells = re.split(r"^   (?:\* |  )-(?: |$)", row, flags=re.MULTILINE)[1:]
        found.append([re.sub(r"\s+", " ", cell).strip() for cell in cells])
    return found


def numbers(text: str) -> set[float]:
    """Return the numbers in a text, some of them in words."""
    digits = {float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)}
    return digits | {number for word, number in WORDS.items() if re.search(rf"\b{word}\b", text)}


def defaults() -> dict[str, float]:
    """Return the options that are numbers, with their defaults."""
    found = Options()
    return {name: value for name, value in found.items() if isinstance(value, int | float) and value > 1}


HAZARDS = [row for row in rows("security") if len(row) == 4 and "--" in row[2] and numbers(row[1])]


@pytest.mark.parametrize("row", HAZARDS, ids=lambda row: row[0])
def test_security_page_has_the_defaults_of_the_options(row: list[str]) -> None:
    known = defaults()
    for name in re.findall(r"``--([a-z-]+)``", row[2]):
        if name in known:
            assert known[name] in numbers(row[1]), f"--{name} is {known[name]}"


def test_security_page_names_defaults_in_most_rows_with_numbers() -> None:
    assert len(HAZARDS) > 15


def test_bounds_without_an_option_are_those_of_the_code() -> None:
    found = {row[0]: row for row in rows("security") if len(row) == 4}
    head = numbers(found["a head without end"][1])
    assert head == {HTTPChannel.totalHeadersSize, LHTTPSite.protocol.maxHeaders}
    assert head == {HANDSHAKE_SIZE, MAX_HEADERS}
    parts = numbers(found["a handshake that makes the server store or read many small parts"][1])
    assert parts == {heads._MAX_PARAMETERS, heads._MAX_QUERY, heads._MAX_STEPS, heads._MAX_LIST, heads._MAX_EXTENSIONS}
    assert admission._GRACE in numbers(found["one address takes all connections"][3])
    assert codes.LOGIN_TIMEOUT in numbers(found["a client that connects and never logs in"][3])
    assert codes.CREDENTIALS_EXPIRED in numbers(found["a stolen token"][3])


def test_number_of_fragments_is_what_the_page_says() -> None:
    found = {row[0]: row for row in rows("security") if len(row) == 4}
    size = Config().limits.message_size
    said = numbers(found["a message in endless or empty fragments"][1])
    assert said == {LEAST_FRAGMENT, size, 2 * size / LEAST_FRAGMENT}


def test_bounds_of_histories_are_what_the_page_says() -> None:
    found = {row[0]: row for row in rows("security") if len(row) == 4}
    (row,) = (row for name, row in found.items() if name.startswith("a short message that asks for many messages"))
    mebibyte = 2**20
    for size, said in (
        (turns._SIZE, "about 131,072 bytes of histories"),
        (pages.PAGE_SIZE, "the server reads 131,072 bytes at a time"),
        (turns._BURST, f"One client gets {turns._BURST // mebibyte} MiB at once"),
        (turns._RATE, f"then {turns._RATE // mebibyte} MiB a second"),
        (turns.MESSAGE_COST, "Each message counts 256 bytes more"),
    ):
        assert said in row[1]
        assert numbers(said) & {size, size / mebibyte}


def page(name: str) -> str:
    return re.sub(r"\s+", " ", (DOCS / f"{name}.rst").read_text(encoding="utf-8"))


def test_memory_of_one_client_is_what_its_bounds_add_up_to() -> None:
    limits = Config().limits
    size = limits.unsent_size + (conversation.QUEUE_SIZES + 4) * limits.message_size
    assert f"that arrive: {size / 2**20:g} MiB with the defaults" in page("howto/production")


def test_memory_of_the_channels_of_one_client_in_a_cluster_is_what_they_add_up_to() -> None:
    text = page("howto/production")
    assert interest._GRACE == 2.0
    assert "add 7 KiB for each channel that no other client of the node subscribes to, until two seconds after" in text
    most = Config().limits.subscription_count
    assert f"{2 * most * 7 / 1024:g} MiB for a client that changes all of its {most} channels" in text


def test_reserve_of_descriptors_is_what_the_page_says() -> None:
    text = page("howto/production")
    assert f"(``--upstream-max-in-flight``), and {descriptors.RESERVE} for the rest" in text
    assert f"descriptors ({descriptors.RESERVE} and one for each request to a backend; a quarter of all" in text
    assert descriptors._reserved(100, 64) == 25
    assert (descriptors._REPORT_INTERVAL, descriptors._PAUSE) == (10.0, 1.0)
