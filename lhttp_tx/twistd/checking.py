"""
``lhttp check-config``: checks whether a server would start with a configuration, and shows the configuration.

The command ``lhttp`` loads this module only for this subcommand, which needs the server. The module needs no packages
beyond those of the server.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from twisted.python import usage

from lhttp_tx.codec.channels import check_channel
from lhttp_tx.errors import LHTTPError
from lhttp_tx.history.values import Retention
from lhttp_tx.ports.places import folder_problem, problem_of, socket_problems, upgrade_problem
from lhttp_tx.rules.keeping import patterns_of, retention_of
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.settings import Setting, settings_of

__all__ = ["check", "effective", "main"]

_USER_INFO = re.compile(r"(?<=://)[^/\s]*@")
"""User and password of a URL."""

_HIDDEN = "..."
"""Shown in place of a secret."""


class _TriedOptions(Options):
    """The options of a server that is not started. They change nothing in the process, and log nothing."""

    installs_reactor = False

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        self.environment = environment

    def tell_unknown(self, variables: Iterable[str]) -> None:
        """Do nothing, because the caller reports unknown variables."""


def check(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """
    Return the options that a server would have.

    This loads everything that the options name: processors, filters, authenticators, plugins, and files with secrets.

    :param arguments: the command line of ``twistd lhttp``.
    :param environment: the environment variables.
    :raises UsageError: if the server would not start. The text says where and why, with a line for each problem.
    """
    options = _TriedOptions(environment)
    options.parseOptions(list(arguments))
    problems = [*_problems(options)]
    if problems:
        raise usage.UsageError("\n".join(problems))
    return options


def _problems(options: Options) -> Iterator[str]:
    """Yield the paths that the server could not use. A start finds them when it opens them."""
    config, admin, manhole = options.config, options.admin, options.manhole
    endpoints = [*(("--listen", each) for each in config.listen), *(("--tcp", each) for each in config.tcp)]
    endpoints += [] if admin is None else [("--admin", admin.listen)]
    endpoints += [] if manhole is None else [("--manhole", manhole.listen)]
    yield from socket_problems(endpoints)
    store = config.history_store or ""
    named = {
        "--upgrade": (upgrade_problem, options["upgrade"]),
        "--log-file": (problem_of, options["log-file"]),
        "--manhole-host-key": (problem_of, None if manhole is None else manhole.host_key),
        "--workers-store": (folder_problem, options["workers-store"]),
        "--history-store": (problem_of, store.removeprefix("sqlite:") if store.startswith("sqlite:") else None),
    }
    for option, (find, path) in named.items():
        problem = find(path) if path else None
        if problem is not None:
            yield f"{option} {path}: {problem}"


def effective(options: Options, *, unset: bool = False) -> Iterator[str]:
    """
    Yield the values of options, and where they were set, as lines of a configuration file. Secrets are hidden.

    :param options: the options of a server.
    :param unset: whether to include options that were not set.
    """
    sources = options.sources
    for name, setting in sorted(settings_of(options).items()):
        where = sources.origins.get(name)
        if where is not None:
            yield f"{name} = {_shown(setting, sources.lists.get(name, options.get(name)))}  # {where}"
        elif name in sources.hidden:
            yield f"# {name}: the secret itself is in ${sources.hidden[name]}"
        elif unset:
            default = None if setting.default is None else _shown(setting, setting.default)
            told = re.search(r"\[default: (.*)\]", setting.meaning)
            yield f"# {name}: {told[1] if told else 'not set'}" if default is None else f"{name} = {default}  # default"


def main(arguments: Sequence[str]) -> int:
    """
    Run ``lhttp check-config``.

    :param arguments: its command line.
    :returns: the exit status: 0 for a valid configuration, 1 for an invalid one, 2 for wrong usage.
    """
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options = arguments[at + 1 :]
    try:
        found = _parser().parse_args(arguments[:at])
    except SystemExit as end:
        return int(end.code or 0)
    path: str | None = found.file
    try:
        for name in found.channel:
            check_channel(name)
    except LHTTPError as error:
        sys.stderr.write(f"lhttp check-config: --channel: {error.reason}\n")
        return 2
    try:
        checked = check([*(() if path is None else ("--config", path)), *options], os.environ)
    except usage.UsageError as error:
        text = str(error)
        sys.stdout.write(f"{text}\n" if path is None or path in text else f"{path}: {text}\n")
        return 1
    sys.stdout.writelines(f"{line}\n" for line in _report(checked, found.channel, found.all))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lhttp check-config",
        usage="%(prog)s [options] [FILE] [-- OPTIONS OF TWISTD LHTTP]",
        description="Check the configuration of a server: the file, the environment variables, and options of the "
        "command line after --. The command prints each error with its file and line. If there are none, it prints "
        "each option that is set, and where it is set. It hides secrets. It loads processors and everything else that "
        "the configuration names.",
        epilog="Exit status: 0 valid; 1 the server would not start; 2 wrong usage.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="configuration file [default: $LHTTP_CONFIG]")
    parser.add_argument("--all", action="store_true", help="also print options that are not set, with their defaults")
    parser.add_argument(
        "--channel",
        metavar="CHANNEL",
        action="append",
        default=[],
        help="print the rule that applies to a channel, instead of the options; repeatable",
    )
    return parser


def _report(options: Options, channels: Sequence[str], unset: bool) -> Iterator[str]:
    file = options.sources.file
    path = "the configuration" if file is None else file.path
    rules = Rules() if file is None else file.rules
    patterns = patterns_of(options.config.history, options.config.retention)
    count = len(options.sources.origins) if file is None else len(file.values)
    yield f"{path}: valid, with {_count(count, 'option')} and {_count(len(rules), 'channel rule')}"
    if file is not None and file.defaults:
        yield f"{path}: default headers for {', '.join(file.defaults)}"
    for variable in options.sources.unknown:
        yield f"${variable}: has no effect: there is no such option"
    for name in channels:
        yield _told(name, rules.find(name), path, retention_of(name, rules, patterns))
    for line in (*options.exposures, *options.idle):
        yield f"{path}: {line}"
    if rules and not channels and not _ends(rules):
        yield f'{path}: channels that match no rule are open to everyone; a last rule with match = ">" changes that'
    if not channels:
        yield from effective(options, unset=unset)


def _shown(setting: Setting, value: Any) -> str:
    if setting.kind == "flag":
        return "true" if value else "false"
    if setting.kind == "number":
        return f"{value:g}" if isinstance(value, float) else str(value)
    hide = _hide_password if setting.name == "auth" else _hide_user
    if isinstance(value, list):
        return json.dumps([hide(text) for text in value], ensure_ascii=False)
    return json.dumps(hide(str(value)), ensure_ascii=False)


def _hide_user(text: str) -> str:
    return _USER_INFO.sub(f"{_HIDDEN}@", text)


def _hide_password(description: str) -> str:
    """
    Hide the argument of a checker, which may be a password. The argument of ``file`` is a path and stays visible.
    """
    kind, colon, _ = description.partition(":")
    return description if kind == "file" else f"{kind}{colon}{_HIDDEN if colon else ''}"


def _ends(rules: Rules) -> bool:
    return any(rule.match == ">" for rule in rules)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _told(channel: str, rule: Rule, path: str, kept: Retention | None) -> str:
    where = f"{path}:{rule.line}: {rule.match}" if rule.line else "no rule"
    told = [f"subscribe {rule.subscribe}", f"publish {rule.publish}"]
    told += [name for name in ("presence", "wildcards") if getattr(rule, name)]
    told += [f"{name} {getattr(rule, name):g}" for name in ("max_size", "max_rate") if getattr(rule, name)]
    told += [] if rule.echo else ["no echo"]
    told += [] if kept is None else [_told_history(kept)]
    return f"{channel}: {where}: {', '.join(told)}"


def _told_history(kept: Retention) -> str:
    bounds = [f"history of {_count(kept.messages, 'message')} for {_time(kept.age)}"]
    bounds += [f"{kept.size} bytes at most"] if kept.size else []
    bounds += [f"recovery of {_count(kept.recovery, 'message')}"] if kept.recovery else []
    return " and ".join(bounds)


def _time(seconds: float) -> str:
    """Return a time in the form of the configuration file, such as ``7d``."""
    units = ((86_400, "d"), (3600, "h"), (60, "m"))
    return next((f"{seconds / unit:g}{name}" for unit, name in units if seconds % unit == 0), f"{seconds:g}s")
