"""
Reads the channel rules again on SIGHUP, and calls :mod:`lhttp_tx.twistd.renewal`.

:mod:`lhttp_tx.twistd.tap` adds this service. Signals belong to the process, so an embedded server does not handle them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from lhttp_tx.codec.defaults import DefaultHeaders
from lhttp_tx.rules.model import Rules
from lhttp_tx.twistd.settings import SettingsError, SettingsFile
from lhttp_tx.twistd.signals import stop_with_terminal
from lhttp_tx.web.admin.keys import AdminKey

__all__ = ["RulesReloader"]

_log = Logger()


class RulesReloader(Service):
    """Applies the contents of files on SIGHUP."""

    def __init__(
        self,
        file: SettingsFile | None,
        use: Callable[[Rules], object],
        *,
        reactor: Any,
        identities: bool = True,
        around: Callable[[Callable[[], object]], object] = lambda call: call(),
        set_keys: Callable[[Iterable[AdminKey]], None] | None = None,
        renew: Callable[[], bool] = lambda: False,
        use_defaults: Callable[[DefaultHeaders], object] = lambda defaults: None,
    ) -> None:
        """
        :param file: the file, as read when the process started; ``None`` if there is none.
        :param use: called with the new rules.
        :param reactor: the running reactor.
        :param identities: whether there is an authenticator.
        :param around: called with the function that reads everything again, and calls it.
        :param use_defaults: called with the new default headers.
        :param renew: reads secrets, keys and certificates again; returns whether there are any.
        :param set_keys: called with the new keys of the admin side; ``None`` if there is none.
        """
        self._set_keys = set_keys
        self._renew = renew
        self._use_defaults = use_defaults
        self._file = file
        self._use = use
        self._reactor = reactor
        self._identities = identities
        self._around = around
        self._before: Any = None

    def privilegedStartService(self) -> None:
        """
        Install the signal handler, in place of the existing one.

        A signal may arrive while the start waits for the end of a previous process. Then the files, which were read
        before, are read again when the reactor runs.
        """
        if self._before is None:
            self._before = signal.signal(signal.SIGHUP, self._signalled)

    def startService(self) -> None:
        """Install the signal handler, if it is not there yet."""
        super().startService()
        self.privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """Restore the earlier signal handler."""
        before, self._before = self._before, None
        signal.signal(signal.SIGHUP, before)
        super().stopService()
        return succeed(None)

    def reload(self) -> None:
        """
        Read secrets, keys and certificates again, then the configuration file, and apply its rules, default headers and
        keys of the admin side.

        If the file has an error, the log says what and where, and nothing from the file is applied. This does not
        change options. The log names the options whose values in the file have changed.
        """
        has_renewed = self._renew()
        if self._file is None:
            if not has_renewed:
                _log.info("SIGHUP: there is no configuration file to read again")
            return
        try:
            file = self._file.load_again()
            file.check_identities(self._identities)
            self._use(file.rules)
        except SettingsError as error:
            self._refuse(self._file.path, error.problems)
            return
        except ValueError as error:  # a rule needs something that this server cannot do
            self._refuse(self._file.path, [f"{self._file.path}: {error}"])
            return
        _log.info("{path}: active channel rules: {count}", path=file.path, count=len(file.rules))
        if file.defaults or self._file.defaults:
            self._use_defaults(file.defaults)
            _log.info("{path}: commands with default headers: {count}", path=file.path, count=len(file.defaults))
        if self._set_keys is not None:
            self._set_keys(file.admin.keys)
            _log.info("{path}: active keys of the admin side: {count}", path=file.path, count=len(file.admin.keys))
        old, new = self._file.values, file.values
        changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        before, after = self._file.plugins, file.plugins
        changed += sorted(f"plugin.{name}" for name in {*before, *after} if before.get(name) != after.get(name))
        if changed:
            names = ", ".join(changed)
            _log.warn("{path}: restart the server to apply these options: {names}", path=file.path, names=names)

    def _refuse(self, path: str, problems: Iterable[str]) -> None:
        for problem in problems:
            _log.error("{problem}", problem=problem)
        _log.error("{path}: not applied, the old channel rules stay active", path=path)

    def _signalled(self, _: int, __: object) -> None:
        self._reactor.callFromThread(self._hang_up)

    def _hang_up(self) -> None:
        if not stop_with_terminal(self._reactor):
            self._around(self.reload)
