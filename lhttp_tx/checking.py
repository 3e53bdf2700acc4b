"""
``lhttp check-config``: whether a server would start with a configuration file.

The command ``lhttp`` loads this when it is asked for: it needs the server, and the rest of the command does not.
"""

from __future__ import annotations

from collections.abc import Mapping

import click
from twisted.python import usage

from lhttp_tx.channels import check_channel
from lhttp_tx.errors import LHTTPError
from lhttp_tx.options import Options
from lhttp_tx.rules import Rule, Rules

__all__ = ["check_config", "check_file"]

_NOTHING: Mapping[str, str] = {}


class _TriedOptions(Options):
    """The options of a server that is not started: the process stays as it is."""

    installs_reactor = False

    def __init__(self) -> None:
        super().__init__()
        self.environment = _NOTHING


def check_file(path: str) -> Options:
    """
    Return the options that a server would have with a file alone, without environment variables.

    What the file names is loaded: processors, filters, authenticators, plugins, and files with secrets.

    :raises UsageError: if it would not start; the text says where and why, a line for each problem.
    """
    options = _TriedOptions()
    options.parseOptions(["--config", path])
    return options


@click.command("check-config")
@click.argument("path", metavar="FILE")
@click.option("--channel", metavar="CHANNEL", multiple=True, help="Say which rule holds for a channel; repeatable.")
def check_config(path: str, channel: tuple[str, ...]) -> int:
    """
    Check the configuration file of a server.

    What is wrong is written with file and line. Processors and other things that the file names are loaded;
    environment variables do not count.
    """
    try:
        for name in channel:
            check_channel(name)
    except LHTTPError as error:
        raise click.BadParameter(error.reason, param_hint="--channel") from None
    try:
        options = check_file(path)
    except usage.UsageError as error:
        text = str(error)
        click.echo(text if text.startswith(path) else f"{path}: {text}")
        return 1
    file = options.sources.file
    assert file is not None
    rules = file.rules
    click.echo(f"{path}: in order, with {_count(len(file.values), 'option')} and {_count(len(rules), 'channel rule')}")
    for name in channel:
        click.echo(_told(name, rules.find(name), path))
    if rules and not channel and not _ends(rules):
        click.echo(f'{path}: channels that match no rule are open to all; a last rule with match = ">" is for them')
    return 0


def _ends(rules: Rules) -> bool:
    return any(rule.match == ">" for rule in rules)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _told(channel: str, rule: Rule, path: str) -> str:
    where = f"{path}:{rule.line}: {rule.match}" if rule.line else "no rule"
    told = [f"subscribe {rule.subscribe}", f"publish {rule.publish}"]
    told += [name for name in ("presence", "wildcards") if getattr(rule, name)]
    told += [f"{name} {getattr(rule, name):g}" for name in ("max_size", "max_rate") if getattr(rule, name)]
    told += [] if rule.echo else ["no echo"]
    return f"{channel}: {where}: {', '.join(told)}"
