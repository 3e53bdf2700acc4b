"""Lines of the log, as JSON and as text, and the names of events."""

from __future__ import annotations

import ast
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogLevel
from twisted.python.failure import Failure

import lhttp_tx
from lhttp_tx.observe.events import NAMES, OTHER, name_of
from lhttp_tx.observe.lines import MAX_VALUE, is_journal, json_line, log_observer, text_line


def an_event(text: str, level: str = "info", **values: Any) -> dict[str, Any]:
    return {
        "log_format": text,
        "log_level": LogLevel.levelWithName(level),
        "log_namespace": "lhttp_tx.some",
        "log_time": 1_800_000_000.25,
        **values,
    }


def test_json_has_the_time_the_level_a_name_and_the_fields() -> None:
    event = an_event("node {name} has left", name="a", log_source=object(), other="not told")
    assert json.loads(json_line(event, "n1")) == {
        "time": "2027-01-15T08:00:00.250+00:00",
        "level": "info",
        "event": "node.left",
        "text": "node a has left",
        "logger": "lhttp_tx.some",
        "node": "n1",
        "fields": {"name": "a"},
    }


def test_whatever_is_logged_stays_in_one_line_without_control_characters() -> None:
    event = an_event("{peer}: {what!r}", peer="\x1b[2J\r\n\u202e\x9b", what=object())
    line = json_line(event)
    assert line.isascii() and line.isprintable()
    assert json.loads(line)["fields"]["peer"] == "\x1b[2J\r\n\u202e\x9b"
    for part in text_line(event).split("\n"):
        assert part.replace("\t", "").isprintable()


def test_a_value_is_not_longer_than_its_bound() -> None:
    found = json.loads(json_line(an_event("{a}", a="x" * 1_000_000)))
    assert len(found["fields"]["a"]) == MAX_VALUE
    assert len(found["text"]) == 16 * MAX_VALUE


def test_a_failure_has_its_traceback() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        found = json.loads(json_line(an_event("it failed", "critical", log_failure=Failure())))
    assert (found["error"], found["level"]) == ("ValueError: no", "critical")
    assert "test_lines.py" in found["traceback"]


def test_text_has_the_name_of_the_node_and_the_level() -> None:
    event = an_event("{a}\n{b}", a="first", b="second")
    assert text_line(event, "n1") == "2027-01-15T08:00:00.250+00:00 [n1 lhttp_tx.some#info] first\n\tsecond"
    assert text_line(event, has_time=False) == "[lhttp_tx.some#info] first\n\tsecond"


def test_the_level_decides_what_is_written_and_a_mistake_costs_one_line() -> None:
    file = io.StringIO()
    observer = log_observer(file, is_json=True, level="warn", ignores=lambda event: "secret" in event)
    for level in ("debug", "info", "warn", "error"):
        observer(an_event(level, level))
    observer(an_event("x", "error", secret=True))
    observer({"log_level": LogLevel.error, "log_time": "not a time", "log_format": "x", "log_namespace": "n"})
    lines = file.getvalue().splitlines()
    assert [json.loads(line)["level"] for line in lines[:2]] == ["warn", "error"]
    assert len(lines) == 3 and "unformattable" in json.loads(lines[2])["text"]


def test_a_line_for_the_journal_begins_with_its_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    try:
        found = os.fstat(writing)
        assert is_journal(writing, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not is_journal(writing, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not is_journal(writing, {"JOURNAL_STREAM": "8:x"}) and not is_journal(writing, {})
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        file = io.StringIO()
        log_observer(file, is_json=False, descriptor=writing)(an_event("one\ntwo", "error"))
        assert file.getvalue() == "<3>[lhttp_tx.some#error] one\n<3>\ttwo\n"
    finally:
        os.close(reading)
        os.close(writing)


def test_every_name_belongs_to_a_text_that_the_server_logs() -> None:
    texts = {
        node.value
        for path in Path(lhttp_tx.__file__).parent.rglob("*.py")
        if path.name != "events.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(NAMES) <= texts


def test_an_event_may_name_itself_and_others_have_a_name_too() -> None:
    assert name_of(an_event("x", event="a.b")) == "a.b"
    assert name_of(an_event("x")) == name_of({}) == OTHER
