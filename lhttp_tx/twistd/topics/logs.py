"""
The options for the log, and for the name of the node in it.

A part of :mod:`lhttp_tx.twistd.options`. The log belongs to the process. Only the options about connections and
processors are also in the :class:`~lhttp_tx.config.Config`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.logger import ILogObserver
from twisted.python import usage

from lhttp_tx.codec.bounds import COUNT_OR_NONE, GRACE, SIZE_OR_NONE
from lhttp_tx.guard.files import check_file
from lhttp_tx.history.tables import read_age
from lhttp_tx.observe.lines import log_observer
from lhttp_tx.observe.rotating import RotatingLogFile
from lhttp_tx.twistd.plugin_cache import tells_of_unwritten
from lhttp_tx.twistd.topics.topic import Topic

__all__ = ["LogOptions", "chosen_observer"]

_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LEVELS = ("debug", "info", "warn", "error", "critical")
_OURS = ("log-level", "log-size", "log-age", "log-keep")

_chosen: list[Callable[[], ILogObserver]] = []
"""The function that makes the log observer of this process; empty until the options are read."""


def chosen_observer() -> ILogObserver:
    """Return the log observer that the options ask for. ``twistd`` calls this function."""
    return _chosen[0]()


class LogOptions(Topic):
    """The options ``--log...`` and ``--node-name``."""

    optParameters = [
        ["log-format", None, None, "Lines of the log: text or json [default: what twistd or twist writes]"],
        ["log-file", None, None, "File for the log with --log-format [default: the standard error]"],
        ["log-level", None, "info", "Lowest level in the log: debug, info, warn, error or critical"],
        ["log-size", None, 0, "Bytes after which --log-file is rotated, 0 for no limit", SIZE_OR_NONE],
        ["log-age", None, "0s", "Time after which --log-file is rotated, such as 24h or 7d, 0s for no limit"],
        ["log-keep", None, 0, "Number of rotated log files to keep, 0 for all", COUNT_OR_NONE],
        ["log-connections", None, None, "Log each connection that opens and ends, at this level: info or debug"],
        [
            "log-slow",
            None,
            0.0,
            "Log each call of a processor that takes at least this many seconds, 0 for none",
            GRACE,
        ],
        [
            "log-stalls",
            None,
            0.0,
            "Log a stack trace if the reactor is blocked for this many seconds, 0 for never",
            GRACE,
        ],
        ["node-name", None, None, "Name of this node, in its log and in NATS"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self._log_path: str | None = None

    def check_logs(self) -> None:
        """:raises UsageError: if an option is malformed, or contradicts another one."""
        for name, known in (
            ("log-format", ("text", "json")),
            ("log-level", _LEVELS),
            ("log-connections", ("info", "debug")),
        ):
            if self[name] is not None and self[name] not in known:
                raise usage.UsageError(f"--{name} {self[name]!r}: choose {', '.join(known[:-1])} or {known[-1]}")
        name = self["node-name"]
        if name is not None and not _NODE_NAME.fullmatch(name):
            raise usage.UsageError(
                f"--node-name {name!r}: write 1 to 63 letters, digits, dots, hyphens and underscores"
            )
        if self._log_age() < 0 or (self["log-format"] is None and self["log-file"] is not None):
            raise usage.UsageError("--log-file goes with --log-format: give both")
        if self["log-file"] is None and (self["log-size"] or self._log_age() or self["log-keep"]):
            raise usage.UsageError("--log-size, --log-age and --log-keep are for the file of --log-file: give it, too")

    def _log_age(self) -> float:
        try:
            return read_age(self["log-age"])
        except ValueError:
            raise usage.UsageError(f"--log-age {self['log-age']!r}: write a time such as 90s, 24h or 7d") from None

    def direct_log(self, parent: Any) -> None:
        """
        Let ``twistd`` or ``twist`` write the log as the options say.

        :param parent: its options; ``None`` in a worker, whose log its supervisor writes.
        :raises UsageError: if they contradict the options of ``--log-format``.
        """
        if self["log-format"] is None or parent is None:
            return
        path = self["log-file"]
        if "fileLogObserverFactory" in parent:  # twist
            parent["fileLogObserverFactory"] = lambda _: self._make_observer()
        else:
            for name in ("logfile", "logger", "syslog"):
                if parent.get(name):
                    raise usage.UsageError(f"--log-format chooses where the log goes: leave out --{name} of twistd")
            if path is None and not parent.get("nodaemon", True):
                raise usage.UsageError("--log-format: a daemon has no standard error; add --log-file")
            _chosen[:] = [self._make_observer]
            parent["logger"] = f"{__name__}.{chosen_observer.__name__}"  # twistd imports it by its name
        if path is not None:
            self._log_path = str(Path(path).absolute())
            try:
                if Path(path).exists():
                    check_file(path, most=sys.maxsize)
                self._open().close()
            except (OSError, ValueError) as error:
                raise usage.UsageError(f"--log-file: {error}") from None

    def _open(self) -> RotatingLogFile:
        assert self._log_path is not None
        return RotatingLogFile(self["log-file"], size=self["log-size"], age=self._log_age(), keep=self["log-keep"])

    def _make_observer(self) -> ILogObserver:
        path = self._log_path
        return log_observer(
            None if path is None else self._open(),
            is_json=self["log-format"] == "json",
            node=self["node-name"],
            level=self["log-level"],
            ignores=tells_of_unwritten,
            descriptor=2 if path is None else None,
        )
