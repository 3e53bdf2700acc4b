"""
What ``lhttp subscribe``, ``lhttp publish`` and ``lhttp upload`` do.

Called by :mod:`lhttp_tx.client.cli`, in the reactor but for ``publish_by_http``.
"""

from __future__ import annotations

import mimetypes
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
from twisted.internet.defer import Deferred, DeferredQueue

from lhttp_tx.client.client import State
from lhttp_tx.client.errors import ClientClosed, ConnectFailed, LoginFailed, NoReply, ReplyError
from lhttp_tx.client.login_options import Connect
from lhttp_tx.client.multipart import multipart_message
from lhttp_tx.client.running import Exit
from lhttp_tx.client.text import LineReader, escaped, message_json, say, write_line
from lhttp_tx.errors import LHTTPError, MessageTooLarge
from lhttp_tx.message import Headers, Message
from lhttp_tx.multipart import Part
from lhttp_tx.publisher import PublishFailed, post_message

__all__ = ["file_part", "publish", "publish_by_http", "publish_lines", "read_body", "subscribe", "upload"]

_MAX_BODY_SIZE = 16_777_216
"""Bytes that one message may be made of; far beyond what a server takes by default."""

_LINES_AT_ONCE = 100
"""Lines whose receipts are awaited at one time."""


async def subscribe(
    reactor: Any,
    *,
    connect: Connect,
    channels: list[str],
    as_json: bool,
    count: int | None,
    limit: float | None,
) -> int:
    """Write what is published to *channels* until *count* messages have come, or *limit* seconds have passed."""
    arrived: DeferredQueue[tuple[str, Message] | LHTTPError | None] = DeferredQueue()
    lost = False

    def state_changed(state: State, reason: str) -> None:
        nonlocal lost
        if state is State.WAITING and client_connected:
            lost = True
            say(f"{reason}; trying again")
        elif state is State.CONNECTED and lost:
            lost = False
            say("connected again")
        elif state is State.CLOSED and client_connected:
            arrived.put(ClientClosed(reason))

    def failed(error: LHTTPError) -> None:
        if isinstance(error, LoginFailed):
            say(error.reason)  # the connection goes on
        else:
            arrived.put(error)

    client = connect(reactor, on_state=state_changed, on_error=failed)
    client_connected = False
    written = 0
    try:
        for channel in channels:
            client.subscribe(channel, lambda message, channel=channel: arrived.put((channel, message)))  # type: ignore[misc]
        await client.connect()
        client_connected = True
        if limit is not None:
            reactor.callLater(limit, arrived.put, None)
        while count is None or written < count:
            found = await arrived.get()
            if found is None:
                if count is not None:
                    say(f"{written} of {count} messages came within {limit:g} seconds")
                return Exit.OK if count is None else Exit.FAILED
            if isinstance(found, LHTTPError):
                raise found
            channel, message = found
            write_line(message_json(message, channel) if as_json else f"{channel}\t{_one_line(message)}")
            written += 1
        return Exit.OK
    finally:
        client_connected = False
        await client.close()


def _one_line(message: Message) -> str:
    return escaped(message.body.decode("utf-8", "replace"))


def read_body(file: Path | None) -> bytes:
    """
    Return what is in *file*, or what the standard input gives.

    :raises MessageTooLarge: if that is more than could be sent.
    """
    if file is not None:
        with file.open("rb") as stream:
            data = stream.read(_MAX_BODY_SIZE + 1)
    else:
        if sys.stdin.isatty():
            say("reading the body from the terminal; end it with Ctrl-D")
        data = sys.stdin.buffer.read(_MAX_BODY_SIZE + 1)
    if len(data) > _MAX_BODY_SIZE:
        raise MessageTooLarge(f"the body is larger than {_MAX_BODY_SIZE} bytes")
    return data


async def publish(
    reactor: Any,
    *,
    connect: Connect,
    channel: str,
    command: str,
    headers: list[tuple[str, str]],
    body: bytes,
    binary: bool,
    timeout: float,
) -> int:
    """Publish one message by WebSocket."""
    client = connect(reactor, timeout=timeout)
    try:
        message = Message(command, [("publish", channel), *headers], body, binary=binary)
        await client.connect()
        await client.confirm(message)
        return Exit.OK
    finally:
        await client.close()


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
    """Publish each line of the standard input as it comes; the first that is refused ends it."""
    waiting: list[Deferred[Message]] = []
    client = connect(reactor, timeout=timeout)
    try:
        await client.connect()
        reader = LineReader(reactor)
        while (line := await _next_line(reader)) is not None:
            message = Message(command, [("publish", channel), *headers], line, binary=binary)
            waiting.append(client.confirm(message))
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
    timeout: float,
) -> int:
    """Publish one message by POST; *url* may be that of the WebSocket."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    path = parts.path if parts.scheme in ("http", "https") and parts.path not in ("", "/") else "/publish"
    address = urlunsplit((scheme, parts.netloc, path, "", ""))
    if ca_file is not None:
        os.environ["SSL_CERT_FILE"] = str(ca_file)
    try:
        post_message(address, channel, command, headers, body, binary=binary, token=token, timeout=timeout)
    except PublishFailed as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise ConnectFailed(error.reason) from error
    return Exit.OK


def file_part(path: Path) -> Part:
    """Return a file as a part of a multipart body."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Part(Headers([("name", path.name.strip()), ("content-type", kind)]), read_body(path))


async def upload(
    reactor: Any,
    *,
    connect: Connect,
    parts: list[Part],
    command: str,
    headers: list[tuple[str, str]],
    channel: str | None,
    progress: bool,
    timeout: float,
) -> int:
    """Send *parts* in one message and write the reply's body."""
    client = connect(reactor, timeout=timeout)
    try:
        pairs = [*headers, *([("publish", channel)] if channel else [])]
        message = multipart_message(command, parts, pairs)
        await client.connect()
        with click.progressbar(
            length=len(message.raw), label="uploading", file=sys.stderr, hidden=not progress, show_eta=False
        ) as bar:
            sent = client.upload(message, lambda done, _: bar.update(done - bar.pos))
            try:
                reply = await sent
            except NoReply:
                if channel:
                    return Exit.OK
                raise ReplyError(
                    f"the server has no processor that replies to {command!r}; nobody has taken the files", status=404
                ) from None
        sys.stdout.buffer.write(reply.body)
        if reply.body and not reply.body.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
        return Exit.OK
    finally:
        await client.close()
