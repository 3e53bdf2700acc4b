"""
Reading the channel rules again on SIGHUP.

A part of what ``twistd lhttp`` runs; :mod:`lhttp_tx.tap` adds it where there is a configuration file. Signals belong
to the process, so a server that is embedded in another program leaves them alone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from lhttp_tx.rules import Rules
from lhttp_tx.settings import SettingsError, SettingsFile

__all__ = ["RulesReloader"]

_log = Logger()


class RulesReloader(Service):
    """Puts the rules in force that are in a file when SIGHUP comes."""

    def __init__(
        self, file: SettingsFile, use: Callable[[Rules], object], *, reactor: Any, identities: bool = True
    ) -> None:
        """
        :param file: the file, as it was when the process started.
        :param use: called with the new rules.
        :param reactor: the running reactor.
        :param identities: whether there is an authenticator that knows who clients are.
        """
        self._file = file
        self._use = use
        self._reactor = reactor
        self._identities = identities
        self._before: Any = None

    def startService(self) -> None:
        """Listen for the signal, in the place of whoever did."""
        super().startService()
        self._before = signal.signal(signal.SIGHUP, self._signalled)

    def stopService(self) -> Deferred[None]:
        """Leave the signal to whoever had it before."""
        signal.signal(signal.SIGHUP, self._before)
        super().stopService()
        return succeed(None)

    def reload(self) -> None:
        """
        Read the file, and put its rules in force.

        If anything in it is wrong, the log says what and where, and nothing changes. Options are not read again; the
        log names those that are others now.
        """
        try:
            file = self._file.load_again()
            file.check_identities(self._identities)
        except SettingsError as error:
            for problem in error.problems:
                _log.error("{problem}", problem=problem)
            _log.error("{path}: nothing has changed: the rules of before are in force", path=self._file.path)
            return
        self._use(file.rules)
        _log.info("{path}: channel rules in force: {count}", path=file.path, count=len(file.rules))
        old, new = self._file.values, file.values
        changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        if changed:
            names = ", ".join(changed)
            _log.warn("{path}: options that change with a restart only: {names}", path=file.path, names=names)

    def _signalled(self, _: int, __: object) -> None:
        self._reactor.callFromThread(self.reload)
