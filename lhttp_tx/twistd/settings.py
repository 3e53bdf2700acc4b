"""
The settings that a configuration file and environment variables may contain, and the file itself.

The file is TOML. Its keys come from the options that a :class:`twisted.python.usage.Options` declares; there is no
second list. Used by :mod:`lhttp_tx.twistd.sources`, and by :mod:`lhttp_tx.twistd.reloading`, which reads the file
again.
"""

from __future__ import annotations

import difflib
import inspect
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from twisted.python import reflect, usage

from lhttp_tx.codec.defaults import DefaultHeaders, read_defaults
from lhttp_tx.guard.files import START_WAIT, read_file
from lhttp_tx.history.tables import read_classes
from lhttp_tx.rules.model import Rules, RulesError
from lhttp_tx.twistd.admin_keys import MOVED, AdminKeys
from lhttp_tx.twistd.toml_lines import Place, find_lines, line_of

__all__ = ["PREFIX", "Setting", "SettingsError", "SettingsFile", "declared", "nearest", "settings_of"]

PREFIX = "LHTTP_"
"""The beginning of the names of environment variables."""

_MAX_SIZE = 1_048_576
"""The most bytes of a file."""

_CHANNELS = "channel"
"""The tables of the file with channel rules, which are no option."""

_DEFAULTS = "default-headers"
"""The table of the file whose tables are the default headers of a command."""

_PLUGINS = "plugin"
"""The table of the file with the tables for processors, filters, hooks and authenticators."""

_CLASSES = "retention"
"""The table of the file whose tables are history classes."""

_UNSETTABLE = frozenset({"config"})
"""Options that a file cannot set: the path of the file itself."""

_TRUE, _FALSE = frozenset({"1", "on", "true", "yes"}), frozenset({"0", "off", "false", "no"})


class SettingsError(usage.UsageError):
    """
    Raised for a file that cannot be used.

    :ivar problems: the problems, one line each, with its place.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Setting:
    """
    An option that a configuration file and the environment can set.

    :ivar name: its name on the command line, without the dashes. It is also the key in the file.
    :ivar kind: ``flag``, ``number``, ``text`` or ``list``.
    :ivar default: the value if it is not set; ``None`` if the default is not a simple value.
    :ivar meaning: its description.
    :ivar coerce: turns a text into a value.
    """

    name: str
    kind: str
    default: Any
    meaning: str
    coerce: Callable[[str], Any] = str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper().replace("-", "_")

    @property
    def bounds(self) -> str:
        """A description of the allowed values; may be empty."""
        return str(getattr(self.coerce, "coerceDoc", "") or "")

    def from_toml(self, value: Any) -> list[str] | bool:
        """
        Return a value of the file in the form of the command line: texts, or whether a flag is set.

        :raises ValueError: if the value has a wrong type.
        """
        if self.kind == "flag":
            if isinstance(value, bool):
                return value
            raise ValueError(f"{self.name} is true or false, not {_shown_type(value)}")
        if self.kind == "number":
            if isinstance(value, int | float) and not isinstance(value, bool):
                return [str(value)]
            advice = f"; write {self.name} = {value}, without quotes" if _is_number(value) else ""
            raise ValueError(f"{self.name} is a number, not {_shown_type(value)}{advice}")
        if self.kind == "text":
            if isinstance(value, str | int) and not isinstance(value, bool):
                return [str(value)]
            raise ValueError(f"{self.name} is a string or a whole number, not {_shown_type(value)}")
        values = value if isinstance(value, list) else [value]
        for found in values:
            if not isinstance(found, str):
                shown = _shown_type(found)
                shown = f"one with {shown}" if values is value else shown
                raise ValueError(f"{self.name} is an array of strings, not {shown}")
        return values

    def from_variable(self, value: str) -> list[str] | bool:
        """
        Return the value of a variable, in the form of :meth:`from_toml`.

        :raises ValueError: if the value is not valid.
        """
        if self.kind == "list":
            return value.split()
        if self.kind != "flag":
            return [value]
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise ValueError(f"{value!r} is neither true nor false")

    def apply(self, options: usage.Options, values: list[str] | bool) -> None:
        """
        Set the option, like the command line.

        :raises UsageError: if the value is not valid.
        """
        if isinstance(values, bool):
            options[self.name] = int(values)
        elif self.kind == "list":
            method = getattr(options, "opt_" + self.name.replace("-", "_"))
            for value in values:
                method(value)
        else:
            try:
                options[self.name] = self.coerce(values[0])
            except ValueError as error:
                raise usage.UsageError(str(error)) from None

    def problem(self, texts: Iterable[str]) -> str | None:
        """Return the error in texts of the command line; ``None`` if they are valid for this option."""
        if self.kind in ("number", "text"):
            for text in texts:
                try:
                    self.coerce(text)
                except ValueError as error:
                    return f"--{self.name}: {error}"
        return None


def settings_of(options: usage.Options | type[usage.Options]) -> dict[str, Setting]:
    """Return the settings by their names: all options except those that only print something."""
    kind = options if isinstance(options, type) else type(options)
    found: list[Setting] = []
    for name, _, meaning in declared(kind, "optFlags", 3):
        found.append(Setting(name, "flag", False, meaning))
    for name, _, default, meaning, coerce in declared(kind, "optParameters", 5):
        is_number = isinstance(default, int | float) and not isinstance(default, bool)
        found.append(Setting(name, "number" if is_number else "text", default, meaning, coerce or str))
    for method_name, method in inspect.getmembers(kind, inspect.isfunction):
        name = method_name.removeprefix("opt_").replace("_", "-")
        if not method_name.startswith("opt_") or name.startswith("help") or len(name) == 1:
            continue
        if len(inspect.signature(method).parameters) == 2:  # an option without a value prints something and exits
            found.append(Setting(name, "list", None, inspect.cleandoc(method.__doc__ or "").replace("\n", " ")))
    return {setting.name: setting for setting in found if setting.name not in _UNSETTABLE}


def declared(kind: type[usage.Options], attribute: str, width: int) -> list[list[Any]]:
    """
    Return the rows of *attribute* of *kind* and of its base classes.

    :param attribute: ``optFlags`` or ``optParameters``.
    :param width: the length of each row. Missing items are ``None``.
    """
    rows: list[Sequence[Any]] = []
    reflect.accumulateClassList(kind, attribute, rows)
    return [[*row, *[None] * width][:width] for row in rows]


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """
    The contents of a configuration file.

    :ivar path: its name, as it was given.
    :ivar values: the values of its options.
    :ivar rules: its channel rules.
    :ivar defaults: its default headers, the tables ``[default-headers.COMMAND]``.
    :ivar plugins: its tables ``[plugin.NAME]``, by these names.
    :ivar admin: the keys of the admin side, its tables ``[admin.keys.NAME]``.
    """

    path: str
    values: Mapping[str, list[str] | bool]
    rules: Rules
    defaults: DefaultHeaders
    plugins: Mapping[str, Mapping[str, Any]]
    admin: AdminKeys
    _lines: Mapping[Place, int] = field(repr=False)
    _location: Path = field(repr=False)
    _settings: Mapping[str, Setting] = field(repr=False)

    @classmethod
    def load(cls, path: str, settings: Mapping[str, Setting]) -> SettingsFile:
        """
        Read a file.

        :param path: its path.
        :param settings: the settings that it may contain.
        :raises SettingsError: if it cannot be read, is not TOML, contains unknown keys, or contains values of a wrong
            type.
        """
        return cls._load(path, Path(path).absolute(), settings, Path.cwd(), START_WAIT)

    def load_again(self) -> SettingsFile:
        """Read the file again, even if the working directory has changed. Raises the same errors as :meth:`load`."""
        return self._load(self.path, self._location, self._settings, self.admin.base, 0.0)

    @classmethod
    def _load(cls, path: str, location: Path, settings: Mapping[str, Setting], base: Path, wait: float) -> SettingsFile:
        text = _read(path, location, wait)
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError([_not_toml(path, text, str(error))]) from None
        except (ValueError, RecursionError):  # Python limits the digits of a number, and the depth
            why = "a number has too many digits, or something is nested too deeply"
            raise SettingsError([f"{path}: {why}"]) from None
        lines = find_lines(text)
        problems: list[tuple[int, str]] = []

        def complain(place: Place, text: str) -> None:
            problems.append((line_of(lines, place), text))

        values: dict[str, list[str] | bool] = {}
        admin = AdminKeys.take(table, base, complain)
        lines |= {(option,): lines[place] for option, place in MOVED.items() if place in lines}
        for key, value in table.items():
            if key in (_CHANNELS, _PLUGINS, _CLASSES, _DEFAULTS):
                continue
            setting = settings.get(key)
            if setting is None:
                complain((key,), _unknown(key, value, settings))
                continue
            try:
                values[key] = setting.from_toml(value)
            except ValueError as error:
                complain((key,), str(error))
        plugins = _plugins(table.get(_PLUGINS, {}), complain)
        rules = Rules()
        classes, wrong = read_classes(table.get(_CLASSES, {}))
        for name, problem in wrong:
            complain((_CLASSES, *name), problem)
        defaults, mistakes = read_defaults(table.get(_DEFAULTS, {}))
        for name, problem in mistakes:
            complain((_DEFAULTS, *name), problem)
        try:
            rules = Rules.from_toml(
                table.get(_CHANNELS, []), lambda place: line_of(lines, (_CHANNELS, *place)), classes
            )
        except RulesError as error:
            for place, problem in error.problems:
                complain((_CHANNELS, *place), problem)
        if problems:
            raise SettingsError(f"{path}:{line}: {text}" for line, text in sorted(problems))
        return cls(path, values, rules, defaults, plugins, admin, lines, location, settings)

    def check_identities(self, known: bool) -> None:
        """
        Check that the rules do not depend on users if there is no authenticator.

        :param known: whether there is an authenticator.
        :raises SettingsError: if they do.
        """
        rule = self.rules.asking
        if rule is not None and not known:
            where = f"{self.path}:{rule.line}: the rule for {rule.match!r}"
            advice = "add --auth, --jwt-key-file or --authenticator"
            raise SettingsError([f"{where} depends on the user, but there is no authenticator: {advice}"])

    def where(self, *place: str | int) -> str:
        """Return file and line of a key, as ``lhttp.toml:3``."""
        return f"{self.path}:{line_of(self._lines, place)}"


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the name in *known* that *name* is probably a misspelling of; ``None`` if no name is similar."""
    guesses = difflib.get_close_matches(name.replace("_", "-").lower(), known, 1, 0.7)
    return guesses[0] if guesses else None


def _unknown(key: str, value: object, settings: Mapping[str, Setting]) -> str:
    if key in _UNSETTABLE:
        return f"{key} is for the command line and the environment alone"
    found = nearest(key, [*settings, _CHANNELS, _CLASSES, _DEFAULTS, _PLUGINS])
    guess = f"; did you mean {found}?" if found else ""
    if isinstance(value, dict | list) and not guess:
        guess = "; options stand at the beginning of the file, before the first [[channel]]"
    return f"there is no option {key}{guess or '; twistd lhttp --help lists them all'}"


def _plugins(found: Any, complain: Callable[[Place, str], None]) -> dict[str, dict[str, Any]]:
    if not isinstance(found, dict):
        complain((_PLUGINS,), f"plugin is a table of tables, not {_shown_type(found)}; write [plugin.NAME]")
        return {}
    for name, table in found.items():
        if not isinstance(table, dict):
            complain((_PLUGINS, name), f"plugin.{name} is a table, not {_shown_type(table)}; write [plugin.NAME]")
    return found


def _read(path: str, location: Path, wait: float) -> str:
    try:
        data = read_file(location, wait=wait, most=_MAX_SIZE, name=path)
    except OSError as error:
        raise SettingsError([f"{path}: {error.strerror or error}"]) from None
    except ValueError as error:
        raise SettingsError([str(error)]) from None
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError([f"{path}:{line}: not UTF-8; save the file as UTF-8"]) from None


def _not_toml(path: str, text: str, told: str) -> str:
    why, _, where = told.rpartition(" (at ")
    found = re.match(r"line (\d+), column \d+\)", where)
    line = int(found[1]) if found else text.rstrip("\n").count("\n") + 1
    return f"{path}:{line}: not TOML: {why or told}"


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return isinstance(value, str)


def _shown_type(value: object) -> str:
    names: list[tuple[Any, str]] = [
        (bool, "true or false"),
        (int | float, "a number"),
        (str, "a string"),
        (list, "an array"),
        (dict, "a table"),
        (datetime | date | time, "a date"),
    ]
    return next(name for kind, name in names if isinstance(value, kind))
