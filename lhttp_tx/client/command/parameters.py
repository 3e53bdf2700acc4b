"""
The arguments and options that several subcommands of ``lhttp`` share, and their checks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from lhttp_tx.client.results import identified
from lhttp_tx.client.websocket.urls import parse_url
from lhttp_tx.codec.channels import check_channel, check_subscription
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.positions import format_position, parse_position
from lhttp_tx.errors import LHTTPError, LocalProtocolError

__all__ = [
    "answer_timeout",
    "channel_option",
    "check_channel_name",
    "check_command",
    "check_message_id",
    "check_position",
    "check_subscriptions",
    "check_url",
    "connection_options",
    "header_option",
    "login_options",
    "message_options",
]

_DEFAULT_URL = "ws://127.0.0.1:8081/"

Function = TypeVar("Function", bound=Callable[..., Any])


def check_url(_: click.Context, __: click.Parameter, value: str) -> str:
    """Check a URL. This is a callback for click, like the next functions."""
    try:
        if urlsplit(value).scheme in ("http", "https"):
            return value
        parse_url(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; a URL looks like {_DEFAULT_URL}") from None
    return value


def check_channel_name(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Check the name of a channel, if one is given."""
    try:
        return None if value is None else check_channel(value)
    except LHTTPError as error:
        raise click.BadParameter(error.reason) from None


def check_position(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Check a position, if one is given."""
    try:
        return None if value is None else format_position(*parse_position(value))
    except LHTTPError as error:
        raise click.BadParameter(f"{error.reason}; lhttp history --json prints positions") from None


def check_message_id(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Check a message id, if one is given."""
    try:
        return None if value is None else identified((), value)[1]
    except LHTTPError as error:
        raise click.BadParameter(error.reason) from None


def check_subscriptions(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check channels and wildcards."""
    try:
        return tuple(check_subscription(channel) for channel in value)
    except LHTTPError as error:
        raise click.BadParameter(error.reason) from None


def check_command(_: click.Context, __: click.Parameter, value: str) -> str:
    """Check the command of a message."""
    try:
        return Message(value).command
    except LocalProtocolError as error:
        raise click.BadParameter(error.reason) from None


def _split_headers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    """Check headers, and return them as pairs of name and value."""
    pairs = [value.partition(":") for value in values]
    if not all(colon for _, colon, _ in pairs):
        raise click.BadParameter("a header is written NAME:VALUE")
    headers = [(name.strip(), value.strip()) for name, _, value in pairs]
    try:
        Message("check", headers)
    except LocalProtocolError as error:
        raise click.BadParameter(error.reason) from None
    return headers


def connection_options(function: Function) -> Function:
    """Add the options that all subcommands have that connect."""
    options = [
        click.option(
            "--url",
            metavar="URL",
            envvar="LHTTP_URL",
            default=_DEFAULT_URL,
            show_default=True,
            show_envvar=True,
            callback=check_url,
            help="URL of the server.",
        ),
        click.option(
            "--ca-file",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Trust the certificates in this PEM file instead of the system's, for wss:// and https://.",
        ),
        click.option(
            "--codec",
            type=click.Choice(["text", "json", "protobuf"]),
            default="text",
            show_default=True,
            help="Form of the messages on a WebSocket.",
        ),
        click.option("-v", "--verbose", is_flag=True, help="Log connection events to the standard error."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _user(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None or (value == value.strip() and value.isprintable() and 0 < len(value) < 256 and ":" not in value):
        return value
    raise click.BadParameter("a user's name is 1 to 255 visible characters without a colon")


def login_options(function: Function, *, also: str = "") -> Function:
    """
    Add the login options.

    :param also: more help text for ``--token-file``.
    """
    options = [
        click.option(
            "--token-file",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Log in with the token in FILE. The file is read again for each connection and each renewal; a pipe "
            "only once." + also,
        ),
        click.option(
            "--user",
            metavar="NAME",
            callback=_user,
            help=(
                "Log in as NAME. The command asks for the password on the terminal, unless you give "
                "--password-file. No option takes a password or a token itself, because every user of the "
                "machine can read command lines."
            ),
        ),
        click.option(
            "--password-file",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="File with the password of --user. It is read again for each connection.",
        ),
        click.option(
            "--plaintext-login",
            is_flag=True,
            help=(
                "Allow a token or a password over ws:// or http:// to another machine. Others on the "
                "network can read it."
            ),
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def answer_timeout(function: Function) -> Function:
    """Add the option for the time limit of an answer."""
    return click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        default=30.0,
        show_default=True,
        help="Time limit for the server's answer.",
    )(function)


def channel_option(text: str) -> Callable[[Function], Function]:
    """Return the option for a channel, with the help text *text*."""
    return click.option("--channel", metavar="CHANNEL", callback=check_channel_name, help=text)


header_option = click.option(
    "--header",
    "headers",
    metavar="NAME:VALUE",
    multiple=True,
    callback=_split_headers,
    help="Add a header; repeatable.",
)


def message_options(default: str) -> Callable[[Function], Function]:
    """Return the options for a message. *default* is the default of ``--command``."""
    command = click.option(
        "--command",
        metavar="COMMAND",
        default=default,
        show_default=True,
        callback=check_command,
        help="The command of the message.",
    )
    return lambda function: command(header_option(function))
