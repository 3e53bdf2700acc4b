"""
``lhttp upload``: sends files in one multipart message.
"""

from __future__ import annotations

import mimetypes
import sys
from pathlib import Path
from typing import Any

import click

from lhttp_tx.client.command.login_options import Connect
from lhttp_tx.client.command.parameters import (
    answer_timeout,
    channel_option,
    connection_options,
    login_options,
    message_options,
)
from lhttp_tx.client.command.running import Exit, run_client
from lhttp_tx.client.command.text import read_body, write_body
from lhttp_tx.client.errors import NoReply, ReplyError
from lhttp_tx.client.multipart import multipart_message
from lhttp_tx.codec.headers import Headers
from lhttp_tx.codec.multipart import Part

__all__ = ["upload_command"]


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
    """Send *parts* in one message, and write the body of the reply."""
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
                    f"the server has no processor that replies to {command!r}; the files were not accepted", status=404
                ) from None
        write_body(reply.body)
        return Exit.OK
    finally:
        await client.close()


@click.command("upload")
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@message_options("upload")
@channel_option("Publish the message to a channel.")
@click.option(
    "--progress/--no-progress", default=None, help="Show a progress bar on the standard error. Default: on a terminal."
)
@answer_timeout
@login_options
@connection_options
def upload_command(files: tuple[Path, ...], progress: bool | None, **settings: Any) -> int:
    """
    Send files in one multipart message and print the reply.

    Each part has the headers "name" (the file name without its directory) and "content-type". The whole message must
    fit into the server's --max-message-size. The command fails if the server has no processor for it, unless you
    publish the message to a --channel.
    """
    return run_client(
        upload,
        **settings,
        parts=[file_part(path) for path in files],
        progress=sys.stderr.isatty() if progress is None else progress,
    )
