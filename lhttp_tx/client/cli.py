"""
The ``lhttp`` command: its subcommands, their options, and what they tell the shell.

Parsed with click. What a subcommand does is in a module of its own or a short function here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from lhttp_tx.channels import check_channel
from lhttp_tx.client import bench as benching, chat as chatting, transfer
from lhttp_tx.client.errors import ConnectFailed, LoginFailed
from lhttp_tx.client.login_options import check_way, choose_login, make_client, read_secret
from lhttp_tx.client.protocol import parse_url
from lhttp_tx.client.running import Exit, Interrupted, run_program, start_logging
from lhttp_tx.client.text import drop_output, say
from lhttp_tx.errors import LHTTPError, LocalProtocolError
from lhttp_tx.message import Message
from lhttp_tx.publisher import PublishFailed

__all__ = ["lhttp", "run"]

DEFAULT_URL = "ws://127.0.0.1:8081/"

_EPILOG = (
    "Exit status: 0 done; 1 refused or failed; 2 wrong usage; 3 cannot connect; 130 interrupted; "
    "141 the reader of the output has gone."
)

_ELSEWHERE = {"check-config": "lhttp_tx.checking:check_config"}
"""Subcommands that need the server, and where they are."""

Function = TypeVar("Function", bound=Callable[..., Any])


def run(arguments: list[str]) -> int:
    """Run the command with *arguments* and return its exit status; whatever goes wrong is one line on stderr."""
    try:
        result = lhttp.main(arguments, prog_name="lhttp", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else Exit.OK
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except Interrupted as interrupted:
        return interrupted.status
    except LoginFailed as error:
        say(f"{_advice(error)} (status {error.status})")
        return Exit.FAILED
    except ConnectFailed as error:
        say(f"{error.reason}; is a server running there? Start one: twistd lhttp --port 8081")
        return Exit.NOT_CONNECTED
    except LHTTPError as error:
        say(f"{_advice(error)} (status {error.status})")
        return Exit.FAILED
    except OSError as error:
        say(f"{error.filename or 'the system'}: {error.strerror or error}")
        return Exit.FAILED


def _advice(error: LHTTPError) -> str:
    """Return what the error says and, where it is known, what to do about it."""
    hints = {
        401: "log in with a valid token in --token-file, or with --user and its password",
        413: "send less, or start the server with a larger --max-message-size",
        429: "send less at a time",
        504: "try again, or allow more with --timeout",
    }
    hint = hints.get(413 if "(1009)" in error.reason else error.status)
    if isinstance(error, PublishFailed) and error.status == 401:
        hint = "give the server's token with --token-file or LHTTP_PUBLISH_TOKEN"
    elif isinstance(error, LoginFailed) and error.status != 401:
        hint = None
    return f"{error.reason}; {hint}" if hint else error.reason


# What several subcommands share


def _url(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        if urlsplit(value).scheme in ("http", "https"):
            return value
        parse_url(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; a URL looks like {DEFAULT_URL}") from None
    return value


def _channels(_: click.Context, __: click.Parameter, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
    try:
        for channel in (value,) if isinstance(value, str) else value:
            check_channel(channel)
    except LHTTPError as error:
        raise click.BadParameter(error.reason) from None
    return value


def _name(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return chatting.checked_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _command(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return Message(value).command
    except LocalProtocolError as error:
        raise click.BadParameter(error.reason) from None


def _headers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [value.partition(":") for value in values]
    if not all(colon for _, colon, _ in pairs):
        raise click.BadParameter("a header is written NAME:VALUE")
    headers = [(name.strip(), value.strip()) for name, _, value in pairs]
    try:
        Message("check", headers)
    except LocalProtocolError as error:
        raise click.BadParameter(error.reason) from None
    return headers


def _connection_options(function: Function) -> Function:
    options = [
        click.option(
            "--url",
            metavar="URL",
            envvar="LHTTP_URL",
            default=DEFAULT_URL,
            show_default=True,
            show_envvar=True,
            callback=_url,
            help="The server.",
        ),
        click.option(
            "--ca-file",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Trust the certificates in this PEM file instead of the system's, for wss:// and https://.",
        ),
        click.option("-v", "--verbose", is_flag=True, help="Log what happens on the connection to the standard error."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _user(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None or (value == value.strip() and value.isprintable() and 0 < len(value) < 256 and ":" not in value):
        return value
    raise click.BadParameter("a user's name is 1 to 255 visible characters without a colon")


def _login_options(function: Function, *, also: str = "") -> Function:
    """:param also: what else the token file is for."""
    options = [
        click.option(
            "--token-file",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Log in with the token in FILE, which is read anew for each connection and each renewal." + also,
        ),
        click.option(
            "--user",
            metavar="NAME",
            callback=_user,
            help="Log in as NAME. The password is asked for on the terminal, unless there is a --password-file. No "
            "option takes a password or a token itself: every user of the machine can read a command line.",
        ),
        click.option(
            "--password-file",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="The password of --user; read anew for each connection, too.",
        ),
        click.option(
            "--plaintext-login",
            is_flag=True,
            help="Send a token or a password even to another machine by ws:// or http://, for everybody on the way to "
            "read.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _answer_timeout(function: Function) -> Function:
    return click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        default=30.0,
        show_default=True,
        help="How long to wait for the server's answer.",
    )(function)


def _tls(url: str, ca_file: Path | None) -> IOpenSSLClientConnectionCreator | None:
    parts = urlsplit(url)
    if ca_file is None or parts.scheme != "wss":
        return None
    begin = b"-----BEGIN CERTIFICATE-----"
    blocks = [begin + block for block in ca_file.read_bytes().split(begin)[1:]]
    try:
        trusted = trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])
    except Exception:
        raise click.BadParameter(f"{ca_file} holds no certificates in PEM format") from None
    if not blocks:
        raise click.BadParameter(f"{ca_file} holds no certificates in PEM format")
    creator: IOpenSSLClientConnectionCreator = optionsForClientTLS(parts.hostname or "", trustRoot=trusted)
    return creator


def _run(
    program: Callable[..., Coroutine[Any, Any, int]],
    *,
    url: str,
    ca_file: Path | None,
    verbose: bool,
    token_file: Path | None,
    user: str | None,
    password_file: Path | None,
    plaintext_login: bool,
    **settings: Any,
) -> int:
    if urlsplit(url).scheme not in ("ws", "wss"):
        raise click.UsageError(f"{url} is no WebSocket URL; only 'lhttp publish' can use HTTP")
    login = choose_login(url, token_file, user, password_file, plaintext_login)
    start_logging(verbose)
    connect = partial(make_client, url, _tls(url, ca_file), login)
    try:
        return run_program(partial(program, connect=connect, **settings))
    except BrokenPipeError:  # here, because click makes its own of it
        drop_output()
        return Exit.BROKEN_PIPE


class _Commands(click.Group):
    """The subcommands, some of which are looked for when they are needed: the client does without the server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, _, name = _ELSEWHERE[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(package_name="lhttp_tx", prog_name="lhttp")
def lhttp() -> None:
    """
    Talk to an LHTTP server.

    The server is given with --url or the environment variable LHTTP_URL.
    """


@lhttp.command()
@click.argument("address", metavar="[URL]", required=False)
@click.option("--room", metavar="CHANNEL", default="chatroom", show_default=True, callback=_channels, help="The room.")
@click.option(
    "--name", metavar="NAME", envvar="USER", default="guest", callback=_name, help="Your name.  [default: $USER]"
)
@click.option("--history", metavar="FILE", type=click.Path(dir_okay=False), help="Keep what you type in this file.")
@click.option("--color/--no-color", default=None, help="Colours; by default where the terminal has them.")
@_login_options
@_connection_options
def chat(
    address: str | None, room: str, name: str, history: str | None, color: bool | None, url: str, **common: Any
) -> int:
    """
    Chat in a room.

    On a terminal, type a line to send it; the arrow keys bring back earlier lines, /help lists the commands. Otherwise
    each line of the standard input is sent, and the command ends with it.
    """
    if address is not None:
        url = _url(click.get_current_context(), None, address)  # type: ignore[arg-type]
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if color is None:
        color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if interactive:
        chatting.install_reactor()
    return _run(
        chatting.chat, url=url, **common, room=room, name=name, color=color, interactive=interactive, history=history
    )


@lhttp.command()
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True, callback=_channels)
@click.option("--json", "as_json", is_flag=True, help="Write each message as one line of JSON.")
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End after N messages.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="End after this time; with --count, that is a failure.",
)
@_login_options
@_connection_options
def subscribe(channels: tuple[str, ...], as_json: bool, count: int | None, timeout: float | None, **common: Any) -> int:
    """
    Write what is published to channels, one line a message.

    A line is the channel, a tab, and the body, in which line breaks, tabs and backslashes are written as in C. When
    the connection is lost it is made again; the standard error says so.
    """
    return _run(
        transfer.subscribe,
        **common,
        channels=list(dict.fromkeys(channels)),
        as_json=as_json,
        count=count,
        limit=timeout,
    )


@lhttp.command()
@click.argument("channel", metavar="CHANNEL", callback=_channels)
@click.argument("body", metavar="[BODY]", required=False)
@click.option(
    "--file",
    "file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Publish what is in FILE.",
)
@click.option("--lines", is_flag=True, help="Publish each line of the standard input as a message of its own.")
@click.option(
    "--command",
    metavar="COMMAND",
    default="chat",
    show_default=True,
    callback=_command,
    help="The command of the message.",
)
@click.option(
    "--header", "headers", metavar="NAME:VALUE", multiple=True, callback=_headers, help="Add a header; repeatable."
)
@click.option("--binary", is_flag=True, help="Send a binary message. What is not UTF-8 is sent so anyway.")
@click.option(
    "--http", "by_http", is_flag=True, help="Publish by POST /publish; implied by an http:// or https:// URL."
)
@_answer_timeout
@partial(
    _login_options,
    also=" With --http it is the server's secret for publishing, otherwise from the environment variable "
    "LHTTP_PUBLISH_TOKEN.",
)
@_connection_options
def publish(
    channel: str,
    body: str | None,
    file: Path | None,
    lines: bool,
    command: str,
    headers: list[tuple[str, str]],
    binary: bool,
    by_http: bool,
    timeout: float,
    **common: Any,
) -> int:
    """
    Publish a message to a channel.

    The body is the argument BODY, else what is in --file, else the standard input. The command ends when the server
    has said that it is published.
    """
    if sum((body is not None, file is not None, lines)) > 1:
        raise click.UsageError("give only one of BODY, --file and --lines")
    by_http = by_http or urlsplit(common["url"]).scheme in ("http", "https")
    if by_http and lines:
        raise click.UsageError("--lines needs a WebSocket; leave --http out, or give a ws:// URL")
    data = b""
    if body is not None:
        data = body.encode("utf-8", "surrogateescape")
    elif not lines:
        data = transfer.read_body(file)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        binary = True
    if by_http:
        token = _publish_token(**common)
        return transfer.publish_by_http(
            common["url"], common["ca_file"], channel, command, headers, data, binary, token, timeout
        )
    settings: dict[str, Any] = {"channel": channel, "command": command, "headers": headers}
    settings |= {"binary": binary, "timeout": timeout}
    if lines:
        return _run(transfer.publish_lines, **common, **settings)
    return _run(transfer.publish, **common, **settings, body=data)


def _publish_token(
    url: str, token_file: Path | None, user: str | None, password_file: Path | None, plaintext_login: bool, **_: Any
) -> str | None:
    """Return the secret for publishing by HTTP, if there is one."""
    if user is not None or password_file is not None:
        raise click.UsageError("POST /publish knows no users; leave --http out, or give --token-file alone")
    token = read_secret(token_file) if token_file else os.environ.get("LHTTP_PUBLISH_TOKEN")
    if token is not None:
        check_way(url, plaintext_login)
    return token


@lhttp.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--command",
    metavar="COMMAND",
    default="upload",
    show_default=True,
    callback=_command,
    help="The command of the message.",
)
@click.option(
    "--header", "headers", metavar="NAME:VALUE", multiple=True, callback=_headers, help="Add a header; repeatable."
)
@click.option(
    "--channel",
    metavar="CHANNEL",
    callback=lambda c, p, v: v and _channels(c, p, v),
    help="Publish the message to a channel.",
)
@click.option(
    "--progress/--no-progress", default=None, help="A progress bar on the standard error; by default on a terminal."
)
@_answer_timeout
@_login_options
@_connection_options
def upload(files: tuple[Path, ...], progress: bool | None, **settings: Any) -> int:
    """
    Send files in one multipart message and write the server's reply.

    Each part has the headers "name" (of the file, without its directory) and "content-type". The whole message counts
    against the server's --max-message-size. Without a processor for the command, nobody takes the files: that is a
    failure, unless they are published to a --channel.
    """
    return _run(
        transfer.upload,
        **settings,
        parts=[transfer.file_part(path) for path in files],
        progress=sys.stderr.isatty() if progress is None else progress,
    )


@lhttp.command()
@click.option(
    "--publishers",
    metavar="N",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    help="Connections that publish.",
)
@click.option(
    "--subscribers",
    metavar="N",
    type=click.IntRange(1, 5_000),
    default=1,
    show_default=True,
    help="Connections that subscribe.",
)
@click.option(
    "--rate",
    metavar="N",
    type=click.FloatRange(min=0),
    default=1_000.0,
    show_default=True,
    help="Messages published a second by all publishers together; 0 for as many as possible.",
)
@click.option(
    "--size",
    metavar="BYTES",
    type=click.IntRange(benching.MIN_SIZE, 1_000_000),
    default=64,
    show_default=True,
    help="The size of a body.",
)
@click.option(
    "--duration",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="How long to publish.",
)
@click.option(
    "--channel",
    metavar="CHANNEL",
    callback=lambda c, p, v: v and _channels(c, p, v),
    help="The channel.  [default: a new one]",
)
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@_login_options
@_connection_options
def bench(
    publishers: int,
    subscribers: int,
    rate: float,
    size: int,
    duration: float,
    channel: str | None,
    as_json: bool,
    **common: Any,
) -> int:
    """
    Measure throughput and latency.

    Publishers and subscribers are connections of this one process. It takes a share of the time measured: at high
    rates it is itself the limit, and several at a time show what the server can do. A message that was lost, doubled
    or out of order makes the command fail.
    """
    settings = benching.Settings(publishers, subscribers, rate, size, duration, channel)
    return _run(benching.bench, **common, settings=settings, as_json=as_json, live=sys.stderr.isatty())
