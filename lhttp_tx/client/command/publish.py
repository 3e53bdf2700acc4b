"""
``lhttp publish``: publishes one message, or one for each line, by WebSocket or by ``POST /publish``.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
from twisted.internet.defer import Deferred

from lhttp_tx.client.command.login_options import Connect, check_way, read_secret
from lhttp_tx.client.command.parameters import (
    answer_timeout,
    check_channel_name,
    check_message_id,
    connection_options,
    login_options,
    message_options,
)
from lhttp_tx.client.command.running import Exit, run_client
from lhttp_tx.client.command.text import LineReader, read_body, say
from lhttp_tx.client.errors import ConnectFailed
from lhttp_tx.client.publisher import PublishFailed, post_message
from lhttp_tx.client.results import Published

__all__ = ["publish_command"]

_LINES_AT_ONCE = 100
"""The most lines that wait for receipts at the same time."""


async def publish(
    reactor: Any,
    *,
    connect: Connect,
    channel: str,
    command: str,
    headers: list[tuple[str, str]],
    body: bytes,
    binary: bool,
    message_id: str | None,
    timeout: float,
) -> int:
    """Publish one message by WebSocket."""
    client = connect(reactor, timeout=timeout)
    try:
        await client.connect()
        _tell(await client.publish(channel, command, headers, body, binary=binary, message_id=message_id))
        return Exit.OK
    finally:
        await client.close()


def _tell(result: Published) -> None:
    if result.duplicate:
        say(f"not published again: the server already has a message with the id {result.message_id}")


async def publish_lines(
    reactor: Any,
    *,
    connect: Connect,
    channel: str,
    command: str,
    headers: list[tuple[str, str]],
    binary: bool,
    timeout: float,
) -> int:
    """Publish each line of the standard input when it comes. The first line that is refused ends the command."""
    waiting: list[Deferred[Published]] = []
    client = connect(reactor, timeout=timeout)
    try:
        await client.connect()
        reader = LineReader(reactor)
        while (line := await _next_line(reader)) is not None:
            waiting.append(client.publish(channel, command, headers, line, binary=binary))
            while len(waiting) >= _LINES_AT_ONCE or (waiting and waiting[0].called):
                await waiting.pop(0)
        while waiting:
            await waiting.pop(0)
        return Exit.OK
    finally:
        for left in waiting:
            left.addErrback(lambda _: None)
        await client.close()


def _next_line(reader: LineReader) -> Deferred[str | None]:
    line: Deferred[str | None] = Deferred()
    reader.take(lambda text: None if line.called else line.callback(text))
    return line


def publish_by_http(
    url: str,
    ca_file: Path | None,
    channel: str,
    command: str,
    headers: list[tuple[str, str]],
    body: bytes,
    binary: bool,
    token: str | None,
    message_id: str | None,
    timeout: float,
) -> int:
    """Publish one message by POST. *url* may also be the URL of the WebSocket."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    path = parts.path if parts.scheme in ("http", "https") and parts.path not in ("", "/") else "/publish"
    address = urlunsplit((scheme, parts.netloc, path, "", ""))
    if ca_file is not None:
        os.environ["SSL_CERT_FILE"] = str(ca_file)
    try:
        result = post_message(
            address,
            channel,
            command,
            headers,
            body,
            binary=binary,
            token=token,
            timeout=timeout,
            message_id=message_id,
        )
    except PublishFailed as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise ConnectFailed(error.reason) from error
    _tell(result)
    return Exit.OK


@click.command("publish")
@click.argument("channel", metavar="CHANNEL", callback=check_channel_name)
@click.argument("body", metavar="[BODY]", required=False)
@click.option(
    "--file",
    "file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Publish the content of FILE.",
)
@click.option("--lines", is_flag=True, help="Publish each line of the standard input as one message.")
@message_options("chat")
@click.option("--binary", is_flag=True, help="Send a binary message. A body that is not UTF-8 is always binary.")
@click.option("--http", "by_http", is_flag=True, help="Use POST /publish. An http:// or https:// URL implies this.")
@click.option(
    "--message-id",
    metavar="ID",
    callback=check_message_id,
    help="1 to 64 visible ASCII characters. If the server has received a message with this ID in the last two minutes, "
    "it does not publish this one. So you can safely repeat a failed command. Default: a random ID.",
)
@answer_timeout
@partial(
    login_options,
    also=" With --http, FILE contains the server's token for publishing. Its default is the environment variable "
    "LHTTP_PUBLISH_TOKEN.",
)
@connection_options
def publish_command(
    channel: str,
    body: str | None,
    file: Path | None,
    lines: bool,
    command: str,
    headers: list[tuple[str, str]],
    binary: bool,
    by_http: bool,
    message_id: str | None,
    timeout: float,
    **common: Any,
) -> int:
    """
    Publish a message to a channel.

    The body is the argument BODY, or the content of --file, or the standard input. The command ends when the server
    has confirmed the publication.
    """
    if sum((body is not None, file is not None, lines)) > 1:
        raise click.UsageError("give only one of BODY, --file and --lines")
    if lines and message_id is not None:
        raise click.UsageError("--message-id is for one message; leave --lines out")
    by_http = by_http or urlsplit(common["url"]).scheme in ("http", "https")
    if by_http and common["codec"] != "text":
        raise click.UsageError("--codec is for a WebSocket; leave --http out, or give a ws:// URL")
    if by_http and lines:
        raise click.UsageError("--lines needs a WebSocket; leave --http out, or give a ws:// URL")
    data = b""
    if body is not None:
        data = body.encode("utf-8", "surrogateescape")
    elif not lines:
        data = read_body(file)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        binary = True
    if by_http:
        token = _publish_token(**common)
        return publish_by_http(
            common["url"], common["ca_file"], channel, command, headers, data, binary, token, message_id, timeout
        )
    settings: dict[str, Any] = {"channel": channel, "command": command, "headers": headers}
    settings |= {"binary": binary, "timeout": timeout}
    if lines:
        return run_client(publish_lines, **common, **settings)
    return run_client(publish, **common, **settings, body=data, message_id=message_id)


def _publish_token(
    url: str, token_file: Path | None, user: str | None, password_file: Path | None, plaintext_login: bool, **_: Any
) -> str | None:
    """Return the server's token for publishing by HTTP; ``None`` if there is none."""
    if user is not None or password_file is not None:
        raise click.UsageError("POST /publish accepts no users; leave out --http, or give only --token-file")
    token = read_secret(token_file) if token_file else os.environ.get("LHTTP_PUBLISH_TOKEN") or None
    if token is not None:
        check_way(url, plaintext_login)
    return token
