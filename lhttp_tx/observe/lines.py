"""
Lines of the log: as text for people, or as JSON for programs.

An observer for Twisted's log, made by :func:`log_observer`. It escapes control characters in texts and values.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from string import Formatter
from time import time
from typing import Any, Final

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
)
from zope.interface import implementer

from lhttp_tx.observe.escapes import printable
from lhttp_tx.observe.events import name_of

__all__ = ["MAX_VALUE", "fields_of", "is_journal", "json_line", "log_observer", "text_line"]

MAX_VALUE: Final = 4_096
"""The most characters of one value in a JSON line. Texts and tracebacks may have sixteen times as many."""

_PRIORITIES: Final = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}
"""The priorities of syslog, by the levels of Twisted (:manpage:`sd-daemon(3)`)."""


def is_journal(descriptor: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a descriptor is the journal of systemd (``$JOURNAL_STREAM``, :manpage:`systemd.exec(5)`)."""
    device, colon, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    if not (colon and device.isdigit() and inode.isdigit()):
        return False
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode)) and not stat.S_ISREG(found.st_mode)


def json_line(event: LogEvent, node: str | None = None) -> str:
    """
    Return an event as one line of JSON, in ASCII.

    It has ``time`` (RFC 3339, UTC), ``level``, ``event``, ``text`` and ``logger``, and ``node`` and ``worker`` if they
    are known. ``fields`` has the values in the text. A failure also has ``error`` and ``traceback``.

    :param node: the name of this node.
    """
    level = event.get("log_level") or LogLevel.info
    found: dict[str, Any] = {
        "time": datetime.fromtimestamp(event.get("log_time", 0.0), UTC).isoformat(timespec="milliseconds"),
        "level": level.name,
        "event": name_of(event),
        "text": eventAsText(event, includeTraceback=False, includeTimestamp=False, includeSystem=False)[
            : 16 * MAX_VALUE
        ],
        "logger": str(event.get("told_namespace") or event.get("log_namespace") or "-"),
    }
    if node is not None:
        found["node"] = node
    if isinstance(event.get("worker_number"), int):
        found["worker"] = event["worker_number"]
    fields = fields_of(event)
    if fields:
        found["fields"] = fields
    failure = event.get("log_failure")
    if failure is not None:
        found["error"] = f"{failure.type.__name__}: {failure.getErrorMessage()}"[:MAX_VALUE]
        found["traceback"] = failure.getTraceback()[: 16 * MAX_VALUE]
    elif isinstance(event.get("told_traceback"), str):
        found["traceback"] = event["told_traceback"][: 16 * MAX_VALUE]
    return json.dumps(found, ensure_ascii=True, separators=(",", ":"))


def fields_of(event: LogEvent) -> dict[str, Any]:
    """Return the values in an event's text, and those in its ``fields``."""
    given = event.get("fields")
    found = dict(given) if isinstance(given, dict) else {}
    text = event.get("log_format")
    if isinstance(text, str) and "told_namespace" not in event:
        try:
            names = [name for _, name, _, _ in Formatter().parse(text) if name]
        except ValueError:
            names = []
        for name in names:
            if name in event and not name.startswith("log_"):
                found[name] = event[name]
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return (value if isinstance(value, str) else str(value))[:MAX_VALUE]


def text_line(event: LogEvent, node: str | None = None, *, has_time: bool = True) -> str:
    """
    Return an event as text: one line, or more if it has a traceback or a stack.

    :param node: the name of this node.
    :param has_time: whether the line begins with the time.
    """
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    lines = [printable(line) for line in text.split("\n")]
    level = event.get("log_level") or LogLevel.info
    system = event.get("log_system") or f"{event.get('log_namespace', '-')}#{level.name}"
    head = f"[{system}]" if node is None else f"[{node} {system}]"
    if has_time:
        moment = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
        head = f"{moment.isoformat(timespec='milliseconds')} {head}"
    return f"{head} " + "\n\t".join(lines)


@implementer(ILogObserver)
class _Observer(FileLogObserver):
    """An observer whose file :mod:`lhttp_tx.observe.log_files` finds."""


def log_observer(
    file: Any,
    *,
    is_json: bool,
    node: str | None = None,
    level: str = "info",
    ignores: Callable[[LogEvent], bool] = lambda event: False,
    descriptor: int | None = None,
) -> ILogObserver:
    """
    Return an observer that writes to a file.

    :param file: a text file, or a log file of Twisted.
    :param level: the lowest level that it writes.
    :param ignores: returns whether an event is left out.
    :param descriptor: the descriptor of *file*, if it may be the journal. Then each line begins with its priority.
    """
    in_journal = descriptor is not None and is_journal(descriptor)

    def line(event: LogEvent) -> str | None:
        if ignores(event):
            return None
        try:
            text = json_line(event, node) if is_json else text_line(event, node, has_time=not in_journal)
        except Exception as error:  # a broken event must not lose its line, or later lines
            told = f"unformattable event of {event.get('log_namespace')!r}: {error!r}"
            text = json_line({"log_format": "{told}", "told": told, "log_time": time()}, node) if is_json else told
        if in_journal:
            mark = f"<{_PRIORITIES[(event.get('log_level') or LogLevel.info).name]}>"
            text = "\n".join(mark + part for part in text.split("\n"))
        return text + "\n"

    predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(level))
    observer: ILogObserver = FilteringLogObserver(_Observer(sys.stderr if file is None else file, line), [predicate])
    return observer
