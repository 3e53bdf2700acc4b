"""
The options about history: which channels have one, how much is kept, and where.

A part of :mod:`lhttp_tx.twistd.options`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.python import usage

from lhttp_tx.bus.nats.jetstream.settings import check_streams
from lhttp_tx.codec import bounds
from lhttp_tx.history.query import COMMAND
from lhttp_tx.history.tables import read_age
from lhttp_tx.history.values import DEFAULT_RETENTION, OPTIONS_CLASS, Retention
from lhttp_tx.interfaces import IProcessor
from lhttp_tx.rules.keeping import check_kept, kept_classes, patterns_of
from lhttp_tx.rules.model import Rules, check_history
from lhttp_tx.twistd.topics.topic import Topic, usage_errors

__all__ = ["HistoryOptions"]


class HistoryOptions(Topic):
    """
    ``--history`` and similar options.

    :ivar idle: a warning for each option that has no effect, because no channel has history.
    """

    optFlags = [["history-in-memory", None, "Let JetStream keep messages in its memory instead of on disk."]]

    optParameters = [
        [
            "history-messages",
            None,
            DEFAULT_RETENTION.messages,
            "Messages to keep of each channel of --history",
            Retention.BOUNDS["messages"],
        ],
        ["history-age", None, "24h", "Time to keep messages of --history channels, such as 90s, 15m, 24h or 7d"],
        ["history-store", None, None, "Store of the history: memory, sqlite:PATH, or jetstream (with NATS)"],
        [
            "history-size",
            None,
            0,
            "Maximum bytes of all histories together, 0 for 64 MiB in memory or 1 GiB on disk",
            bounds.SIZE_OR_NONE,
        ],
        ["history-replicas", None, 1, "Number of NATS servers that store each message", bounds.REPLICAS],
        [
            "message-id-window",
            None,
            120.0,
            "Seconds in which the server does not publish a message id again",
            bounds.SECONDS,
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self._history: list[str] = []
        self.idle: list[str] = []

    def opt_history(self, pattern: str) -> None:
        """Channels with history, such as room.* or > for all (repeatable)"""
        with usage_errors("--history"):
            self._history.append(check_history(pattern))

    def history_settings(self, *, processors: Any, rules: Rules | None, has_nats: bool) -> dict[str, Any]:
        """
        Return settings of :class:`lhttp_tx.config.Config`.

        :param processors: the processors.
        :param rules: the channel rules.
        :param has_nats: whether there is NATS.
        :raises UsageError: if the options contradict each other.
        """
        store = self["history-store"]
        if store is not None and store not in ("memory", "jetstream") and not store.startswith("sqlite:"):
            raise usage.UsageError(f"--history-store {store!r}: it is memory, sqlite:PATH or jetstream")
        if store == "sqlite:":
            raise usage.UsageError("--history-store sqlite: names no file; write sqlite:PATH")
        if store == "jetstream" and not has_nats:
            raise usage.UsageError("--history-store jetstream needs NATS: name a server with --nats")
        if has_nats and store not in (None, "jetstream"):
            raise usage.UsageError(
                f"--history-store {store}: the nodes of a cluster share their history, which is in JetStream; "
                "leave it out"
            )
        for name, is_set in (
            ("history-replicas", self["history-replicas"] > 1),
            ("history-in-memory", self["history-in-memory"]),
        ):
            if is_set and not has_nats:
                raise usage.UsageError(f"--{name} is for JetStream: name a server with --nats")
        with usage_errors("--history-age:"):
            retention = Retention(
                OPTIONS_CLASS, messages=self["history-messages"], age=read_age(_number(self["history-age"]))
            )
            if replace(retention, name=DEFAULT_RETENTION.name) == DEFAULT_RETENTION:
                retention = DEFAULT_RETENTION
        patterns = patterns_of(self._history, retention)
        classes = kept_classes(rules, patterns)
        if classes:
            self._check_command(processors)
            with usage_errors():
                check_kept(rules, patterns)
                if has_nats:
                    check_streams(classes, self["nats-prefix"])
        if store is not None and store.startswith("sqlite:"):
            _check_path(Path(store.removeprefix("sqlite:")))
        self.idle = [] if classes else self._idle()
        return {
            "history": tuple(self._history),
            "retention": retention,
            "history_store": store,
            "history_size": self["history-size"],
            "history_replicas": self["history-replicas"],
            "history_in_memory": bool(self["history-in-memory"]),
            "message_id_window": self["message-id-window"],
        }

    def _idle(self) -> list[str]:
        """Return a warning for each option that has no effect because no channel has history."""
        given = {
            "history-messages": self["history-messages"] != DEFAULT_RETENTION.messages,
            "history-age": read_age(_number(self["history-age"])) != DEFAULT_RETENTION.age,
            "history-store": self["history-store"] is not None,
            "history-size": self["history-size"] != 0,
            "history-replicas": self["history-replicas"] != 1,
            "history-in-memory": bool(self["history-in-memory"]),
        }
        advice = "no channel has history: name some with --history, or history = true in a channel rule"
        return [f"--{name} has no effect: {advice}" for name, is_given in given.items() if is_given]

    @staticmethod
    def _check_command(processors: Any) -> None:
        found: IProcessor
        for found in processors:
            if found.command == COMMAND:
                raise usage.UsageError(
                    f"{found!r} has the command {COMMAND!r}, which the server handles if a channel has history"
                )


def _check_path(path: Path) -> None:
    """:raises UsageError: if there is no folder for a history, or a folder in its place."""
    if path.is_dir():
        raise usage.UsageError(f"--history-store sqlite:{path}: this is a folder; write the path of a file")
    if path.exists() and not path.is_file():
        raise usage.UsageError(f"--history-store sqlite:{path}: this is no regular file; write the path of one")
    if not path.parent.is_dir():
        raise usage.UsageError(f"--history-store sqlite:{path}: there is no folder {path.parent}; create it")


def _number(text: str) -> str | float:
    """Return *text* as a number of seconds if it is one, otherwise unchanged."""
    return float(text) if re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", text) else text
