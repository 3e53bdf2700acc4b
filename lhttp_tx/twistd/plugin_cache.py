"""
Hides Twisted's messages about a plugin cache that it cannot write.

If root has installed the package and another user runs it, as recommended, Twisted cannot write its cache of plugins.
It searches the plugins at each start, and logs an error each time, although nothing is wrong.
:mod:`lhttp_tx.twistd.tap` and :mod:`lhttp_tx.twistd.worker`, which own the process, keep this error out of the log.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import LogEvent, globalLogBeginner

__all__ = ["forget_unwritten", "tells_of_unwritten"]

_BEGINNING = "Unable to write to plugin cache"


def tells_of_unwritten(event: LogEvent) -> bool:
    """Return whether a log event says that Twisted could not write the cache."""
    return str(event.get("format", "")).startswith(_BEGINNING)


def forget_unwritten() -> None:
    """
    Drop such events from those that wait for the log to begin.

    These events are in a private attribute of Twisted. If a version of Twisted keeps them elsewhere, they are logged.
    """
    waiting: Any = getattr(getattr(globalLogBeginner, "_initialBuffer", None), "_buffer", None)
    if waiting is None:
        return
    kept = [event for event in waiting if not tells_of_unwritten(event)]
    waiting.clear()
    waiting.extend(kept)
