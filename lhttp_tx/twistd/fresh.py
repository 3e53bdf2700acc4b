"""
``twistd lhttp --reload``: replaces the processors of a changed file, without dropping connections.

For development. :mod:`lhttp_tx.twistd.tap` adds this service if the option is given.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.engine.lifecycle import Lifecycle
from lhttp_tx.interfaces import IProcessor
from lhttp_tx.service import LHTTPService
from lhttp_tx.twistd.loading import load_object

__all__ = ["Freshener"]

_log = Logger()

_INTERVAL = 0.5
"""Seconds between checks of the files."""


class _File:
    """
    A file that processors were loaded from.

    :ivar processors: the processors in use, by their names on the command line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.processors: dict[str, IProcessor] = {}
        self._seen = self._look()

    def has_changed(self) -> bool:
        """Return whether the file has changed since the last call."""
        seen, self._seen = self._seen, self._look()
        return self._seen is not None and seen != self._seen

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:  # an editor may be replacing the file
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


class Freshener(Service):
    """Watches the files, and replaces old processors by new ones."""

    def __init__(self, server: LHTTPService, named: Iterable[tuple[str, IProcessor]], *, reactor: Any) -> None:
        """
        :param server: the server.
        :param named: the names of processors on the command line, and the processors. Only names of files count.
        :param reactor: the running reactor.
        """
        self._server = server
        self._reactor = reactor
        self._files: dict[Path, _File] = {}
        for name, found in named:
            place, _, attribute = name.rpartition(":")
            if place.endswith(".py"):
                path = Path(place).resolve()
                file = self._files.setdefault(path, _File(path))
                file.processors[f"{path}:{attribute}"] = found
        self._call = LoopingCall(self.look)
        self._call.clock = reactor
        self._waiting: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin to watch."""
        super().startService()
        for path in self._files:
            _log.info("{path}: the server loads this file again when it changes", path=str(path))
        self._call.start(_INTERVAL, now=False)

    def stopService(self) -> None:
        """Stop watching."""
        super().stopService()
        if self._call.running:
            self._call.stop()

    def look(self) -> None:
        """Load each file again that has changed since the last check."""
        if self._waiting is not None:
            return
        for file in self._files.values():
            if file.has_changed():
                self._load(file)

    def _load(self, file: _File) -> None:
        """Replace the processors of a file. If that fails, the old ones stay."""
        name = str(file.path)
        before = sys.modules.pop(name, None)
        with suppress(OSError):  # the cache cannot distinguish two versions of the same second and size
            Path(cache_from_source(name)).unlink()
        try:
            found = {each: load_object(each, IProcessor) for each in file.processors}
            self._server.engine.registry.replace(_pairs(file, found), only_check=True)
        except ValueError as error:
            if before is not None:
                sys.modules[name] = before
            _log.error("{path}: not loaded, the old processors stay active: {error}", path=name, error=error)
            return
        limit = self._server.config.limits.processor_timeout
        starting = Lifecycle(found.values(), clock=self._reactor, timeout=limit)
        waiting = self._waiting = starting.start(self._server.server)
        waiting.addCallbacks(self._use, self._not_started, callbackArgs=(file, found), errbackArgs=(file, starting))
        waiting.addErrback(lambda failure: _log.failure("replacing processors failed", failure))
        waiting.addBoth(self._done)

    def _use(self, _: None, file: _File, found: dict[str, IProcessor]) -> None:
        self._server.replace_processors(_pairs(file, found))
        file.processors = found
        commands = ", ".join(sorted(each.command for each in found.values()))
        _log.info("{path}: loaded again: {commands}", path=str(file.path), commands=commands)

    def _not_started(self, failure: Failure, file: _File, starting: Lifecycle) -> Deferred[None]:
        _log.error("{path}: the old processors stay active: {error}", path=str(file.path), error=failure.value)
        return starting.stop(self._server.server)

    def _done(self, _: object) -> None:
        self._waiting = None


def _pairs(file: _File, found: dict[str, IProcessor]) -> list[tuple[IProcessor, IProcessor]]:
    return list(zip(file.processors.values(), found.values(), strict=True))
