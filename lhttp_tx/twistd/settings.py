"""
The options of the command line in two more places: a configuration file and environment variables.

The file is TOML. What it may hold is derived from the options that a :class:`twisted.python.usage.Options` declares;
there is no second list. Used by :mod:`lhttp_tx.options`, and by whatever reads the file again.
"""

from __future__ import annotations

import difflib
import getopt
import inspect
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from twisted.python import reflect, usage

from lhttp_tx.rules import Rules, RulesError
from lhttp_tx.toml_lines import Place, find_lines, line_of

__all__ = ["Setting", "SettingsError", "SettingsFile", "Sources", "settings_of"]

PREFIX = "LHTTP_"
"""What the names of environment variables begin with."""

_MAX_SIZE = 1_048_576
"""Bytes of a file that are read."""

_CHANNELS = "channel"
"""The table of the file that is no option."""

_UNSETTABLE = frozenset({"config"})
"""Options that a file cannot set: where it is."""

_TRUE, _FALSE = frozenset({"1", "on", "true", "yes"}), frozenset({"0", "off", "false", "no"})


class SettingsError(usage.UsageError):
    """
    A file that cannot be used.

    :ivar problems: what is wrong, a line each, which says where.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Setting:
    """
    An option, as the file and the environment know it.

    :ivar name: its name on the command line, without the dashes; in the file, the key.
    :ivar kind: ``flag``, ``number``, ``text`` or ``list``.
    :ivar default: what holds where nobody sets it; ``None`` if that takes a sentence.
    :ivar meaning: what it is.
    :ivar coerce: makes a value of text.
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
        """Which values it takes; may be empty."""
        return str(getattr(self.coerce, "coerceDoc", "") or "")

    def from_toml(self, value: Any) -> list[str] | bool:
        """
        Return a value of the file as the command line would have it: texts, or whether a flag is set.

        :raises ValueError: if it is of the wrong type.
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
        Return the value of a variable, as :meth:`from_toml`.

        :raises ValueError: if it makes no sense.
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
        Set the option, as the command line does.

        :raises UsageError: if the value makes no sense.
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


def settings_of(options: usage.Options | type[usage.Options]) -> dict[str, Setting]:
    """Return what a file can set, under their names: each option that is no mere question to the program."""
    kind = options if isinstance(options, type) else type(options)
    found: list[Setting] = []
    for name, _, meaning in _declared(kind, "optFlags", 3):
        found.append(Setting(name, "flag", False, meaning))
    for name, _, default, meaning, coerce in _declared(kind, "optParameters", 5):
        is_number = isinstance(default, int | float) and not isinstance(default, bool)
        found.append(Setting(name, "number" if is_number else "text", default, meaning, coerce or str))
    for method_name, method in inspect.getmembers(kind, inspect.isfunction):
        name = method_name.removeprefix("opt_").replace("_", "-")
        if not method_name.startswith("opt_") or name.startswith("help") or len(name) == 1:
            continue
        if len(inspect.signature(method).parameters) == 2:  # without a value, it prints something and exits
            found.append(Setting(name, "list", None, inspect.cleandoc(method.__doc__ or "").replace("\n", " ")))
    return {setting.name: setting for setting in found if setting.name not in _UNSETTABLE}


def _declared(kind: type[usage.Options], attribute: str, width: int) -> list[list[Any]]:
    declared: list[Sequence[Any]] = []
    reflect.accumulateClassList(kind, attribute, declared)
    return [[*row, *[None] * width][:width] for row in declared]


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """
    A configuration file, read.

    :ivar path: its name, as it was given.
    :ivar values: what its options are set to.
    :ivar rules: its channel rules.
    """

    path: str
    values: Mapping[str, list[str] | bool]
    rules: Rules
    _lines: Mapping[Place, int] = field(repr=False)
    _location: Path = field(repr=False)
    _settings: Mapping[str, Setting] = field(repr=False)

    @classmethod
    def load(cls, path: str, settings: Mapping[str, Setting]) -> SettingsFile:
        """
        Read a file.

        :param path: where it is.
        :param settings: what it may set.
        :raises SettingsError: if it cannot be read, is not TOML, holds what it must not, or what is of the wrong type.
        """
        return cls._load(path, Path(path).absolute(), settings)

    def load_again(self) -> SettingsFile:
        """Read the file as it is now, wherever the process works by now; raises what :meth:`load` raises."""
        return self._load(self.path, self._location, self._settings)

    @classmethod
    def _load(cls, path: str, location: Path, settings: Mapping[str, Setting]) -> SettingsFile:
        text = _read(path, location)
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError([_not_toml(path, text, str(error))]) from None
        lines = find_lines(text)
        problems: list[tuple[int, str]] = []

        def complain(place: Place, text: str) -> None:
            problems.append((line_of(lines, place), text))

        values: dict[str, list[str] | bool] = {}
        for key, value in table.items():
            if key == _CHANNELS:
                continue
            setting = settings.get(key)
            if setting is None:
                complain((key,), _unknown(key, value, settings))
                continue
            try:
                values[key] = setting.from_toml(value)
            except ValueError as error:
                complain((key,), str(error))
        rules = Rules()
        try:
            rules = Rules.from_toml(table.get(_CHANNELS, []), lambda place: line_of(lines, (_CHANNELS, *place)))
        except RulesError as error:
            for place, problem in error.problems:
                complain((_CHANNELS, *place), problem)
        if problems:
            raise SettingsError(f"{path}:{line}: {text}" for line, text in sorted(problems))
        return cls(path, values, rules, lines, location, settings)

    def check_identities(self, known: bool) -> None:
        """
        Check that the rules do not ask who clients are where nobody knows.

        :param known: whether there is an authenticator.
        :raises SettingsError: if they do.
        """
        rule = self.rules.asking
        if rule is not None and not known:
            where = f"{self.path}:{rule.line}: the rule for {rule.match!r}"
            advice = "add --auth, --jwt-key-file or --authenticator"
            raise SettingsError([f"{where} asks who clients are, but nothing tells: {advice}"])

    def where(self, *place: str | int) -> str:
        """Return file and line of a key, as ``lhttp.toml:3``."""
        return f"{self.path}:{line_of(self._lines, place)}"


class Sources:
    """
    What sets the options before the command line does: a file, and over it the environment.

    :ivar file: the file, or ``None``.
    """

    def __init__(self, options: usage.Options, *, secrets: Mapping[str, str] | None = None) -> None:
        """
        :param options: what is set.
        :param secrets: variables that hold the secret itself, each under the option that names a file with it.
        """
        self._options = options
        self._secrets = secrets or {}
        self._settings = settings_of(options)
        self._origins: dict[str, str] = {}
        self.file: SettingsFile | None = None

    def apply(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """
        Set what *arguments* do not set.

        :param arguments: the command line. ``--config`` in it names the file, else the variable ``LHTTP_CONFIG``.
        :param environment: the environment variables.
        :raises SettingsError: if something makes no sense; all that makes none is told.
        """
        named = self._named(arguments)
        if named is None or "help" in named or "version" in named:
            return
        path = named.get("config") or environment.get(PREFIX + "CONFIG")
        problems: list[str] = []
        set_by_variable: dict[str, str] = {
            setting.name: environment[setting.variable]
            for setting in self._settings.values()
            if environment.get(setting.variable) and setting.name not in named
        }
        if path:
            self.file = SettingsFile.load(path, self._settings)
            for name, values in self.file.values.items():
                if not (name in named or name in set_by_variable or self._secrets.get(name, "") in environment):
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
        if problems:
            raise SettingsError(problems)

    def located(self, text: str) -> str:
        """Return the text of an error, with the place where the first option that it names was set, if it is known."""
        for name in re.findall(r"--([a-z][a-z0-9-]*)", text):
            if name in self._origins:
                return f"{self._origins[name]}: {text}"
        return text

    def _apply(self, name: str, values: list[str] | bool, where: str, problems: list[str]) -> None:
        try:
            self._settings[name].apply(self._options, values)
        except usage.UsageError as error:
            text = str(error)
            problems.append(f"{where}: {text}" if f"--{name}" in text else f"{where}: {name}: {text}")
        else:
            self._origins[name] = where

    def _named(self, arguments: Sequence[str]) -> dict[str, str] | None:
        """Return the options that *arguments* name, with their last values; ``None`` if they make no sense."""
        try:
            found, _ = getopt.getopt(list(arguments), self._options.shortOpt, self._options.longOpt)
        except getopt.GetoptError:
            return None
        synonyms = self._options.synonyms
        return {synonyms.get(name.lstrip("-"), name.lstrip("-")): value for name, value in found}


def _suggestion(name: str, known: Collection[str]) -> str:
    """Return the end of a sentence about an unknown name: a guess what was meant, or nothing."""
    guesses = difflib.get_close_matches(name.replace("_", "-").lower(), known, 1, 0.7)
    return f"; did you mean {guesses[0]}?" if guesses else ""


def _unknown(key: str, value: object, settings: Mapping[str, Setting]) -> str:
    if key in _UNSETTABLE:
        return f"{key} is for the command line and the environment alone"
    guess = _suggestion(key, [*settings, _CHANNELS])
    if isinstance(value, dict | list) and not guess:
        guess = "; options stand at the beginning of the file, before the first [[channel]]"
    return f"there is no option {key}{guess or '; twistd lhttp --help lists them all'}"


def _read(path: str, location: Path) -> str:
    try:
        with location.open("rb") as file:
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise SettingsError([f"{path}: {error.strerror or error}"]) from None
    if len(data) > _MAX_SIZE:
        raise SettingsError([f"{path}: larger than {_MAX_SIZE} bytes"])
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
