"""
The sources of option values: a configuration file, environment variables, and the command line, which overrides both.

Used by :mod:`lhttp_tx.twistd.options`. :mod:`lhttp_tx.twistd.checking` shows the result.
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Mapping, Sequence

from twisted.python import usage

from lhttp_tx.twistd.settings import PREFIX, Setting, SettingsError, SettingsFile, nearest, settings_of

__all__ = ["COMMAND_LINE", "Sources"]

COMMAND_LINE = "the command line"
"""The origin of an option that was set on the command line."""

_FOREIGN = frozenset({"ADMIN_KEY", "ADMIN_URL", "URL"})
"""The endings of variables with our prefix that are for the command ``lhttp``."""

_KUBERNETES = re.compile(r"(?:.+_)?(?:SERVICE_(?:HOST|PORT(?:_.+)?)|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)")
_KUBERNETES_URL = re.compile(r"(?:tcp|udp|sctp)://")
"""Values of variables that Kubernetes sets for a service whose name begins with ``lhttp``. They are not options."""


class Sources:
    """
    Sets options before the command line does: from a file, and from the environment, which overrides the file.

    :ivar file: the file, or ``None``.
    :ivar unknown: variables with our prefix that set no option, and do not resemble one that does.
    :ivar hidden: the used variables that contain a secret itself, by the option that names a file with the secret.
    :ivar origins: where each option was set: file and line, variable, or :data:`COMMAND_LINE`.
    :ivar lists: the values of repeatable options that were set.
    """

    def __init__(self, options: usage.Options, *, secrets: Mapping[str, str] | None = None) -> None:
        """
        :param options: the options to set.
        :param secrets: variables that contain a secret itself, by the option that names a file with the secret.
        """
        self._options = options
        self._secrets = secrets or {}
        self._settings = settings_of(options)
        self.file: SettingsFile | None = None
        self.unknown: tuple[str, ...] = ()
        self.hidden: dict[str, str] = {}
        self.origins: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}

    def apply(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """
        Set the options that *arguments* do not set. An empty variable counts as missing.

        :param arguments: the command line. Its ``--config`` names the file, otherwise the variable ``LHTTP_CONFIG``.
        :param environment: the environment variables.
        :raises SettingsError: if a value is not valid, or a variable is probably misspelt. It lists all problems.
        """
        named = self._named(arguments)
        if named is None or "help" in named or "version" in named:
            return
        config = named.pop("config", [])
        path = (config[-1] if config else "") or environment.get(PREFIX + "CONFIG")
        problems: list[str] = []
        set_by_variable: dict[str, str] = {
            setting.name: environment[setting.variable]
            for setting in self._settings.values()
            if environment.get(setting.variable) and setting.name not in named
        }
        self.unknown = self._find_unknown(environment, problems)
        self.hidden = {
            name: variable
            for name, variable in self._secrets.items()
            if environment.get(variable) and name not in named and name not in set_by_variable
        }
        if path:
            self.file = SettingsFile.load(path, self._settings)
            for name, values in self.file.values.items():
                if not (name in named or name in set_by_variable or name in self.hidden):
                    self._apply(name, values, self.file.where(name), problems)
        for name, value in set_by_variable.items():
            setting = self._settings[name]
            where = "$" + setting.variable
            try:
                values = setting.from_variable(value)
            except ValueError as error:
                problems.append(f"{where}: {error}")
            else:
                self._apply(name, values, where, problems)
        settings = [(self._settings[name], texts) for name, texts in named.items() if name in self._settings]
        problems.extend(filter(None, (setting.problem(texts) for setting, texts in settings)))
        if problems:
            raise SettingsError(problems)
        for setting, texts in settings:
            self._note(setting, texts, COMMAND_LINE)

    def located(self, text: str) -> str:
        """Return an error text with the place where the first option that it names was set, if the place is known."""
        for name in re.findall(r"--([a-z][a-z0-9-]*)", text):
            where = self.origins.get(name, COMMAND_LINE)
            if where != COMMAND_LINE:
                return f"{where}: {text}"
        return text

    def _apply(self, name: str, values: list[str] | bool, where: str, problems: list[str]) -> None:
        setting = self._settings[name]
        try:
            setting.apply(self._options, values)
        except usage.UsageError as error:
            text = str(error)
            problems.append(f"{where}: {text}" if f"--{name}" in text else f"{where}: {name}: {text}")
        else:
            self._note(setting, values, where)

    def _note(self, setting: Setting, values: list[str] | bool, where: str) -> None:
        self.origins[setting.name] = where
        if setting.kind == "list" and not isinstance(values, bool):
            self.lists[setting.name] = values

    def _find_unknown(self, environment: Mapping[str, str], problems: list[str]) -> tuple[str, ...]:
        """Return the unknown variables. Add probable misspellings of known ones to *problems*."""
        known = {setting.variable: setting.name for setting in self._settings.values()}
        known |= {variable: _ending(variable) for variable in (PREFIX + "CONFIG", *self._secrets.values())}
        variables = {name: variable for variable, name in known.items()}
        unknown: list[str] = []
        for variable in sorted(environment):
            if variable in known or not environment[variable] or not variable.startswith(PREFIX):
                continue
            ending = variable.removeprefix(PREFIX)
            if ending in _FOREIGN or _is_kubernetes(ending, environment[variable]):
                continue
            guess = nearest(ending, variables)
            if guess is None:
                unknown.append(variable)
            else:
                problems.append(f"${variable}: there is no such option; did you mean {variables[guess]}?")
        return tuple(unknown)

    def _named(self, arguments: Sequence[str]) -> dict[str, list[str]] | None:
        """Return the options that *arguments* name, with their values; ``None`` if *arguments* cannot be parsed."""
        try:
            found, _ = getopt.getopt(list(arguments), self._options.shortOpt, self._options.longOpt)
        except getopt.GetoptError:
            return None
        synonyms = self._options.synonyms
        named: dict[str, list[str]] = {}
        for option, value in found:
            name = option.lstrip("-")
            named.setdefault(synonyms.get(name, name), []).append(value)
        return named


def _ending(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower().replace("_", "-")


def _is_kubernetes(ending: str, value: str) -> bool:
    if _KUBERNETES.fullmatch(ending):
        return True
    return ending.endswith("PORT") and _KUBERNETES_URL.match(value) is not None
