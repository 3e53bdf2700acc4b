"""
``lhttp request`` and ``lhttp presence``: send one message, and print the reply.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lhttp_tx.client.client import Client
from lhttp_tx.client.command.login_options import Connect
from lhttp_tx.client.command.parameters import (
    answer_timeout,
    check_channel_name,
    check_command,
    connection_options,
    header_option,
    login_options,
)
from lhttp_tx.client.command.running import Exit, run_client
from lhttp_tx.client.command.text import escaped, message_json, read_body, write_body, write_line
from lhttp_tx.codec.message import Message

__all__ = ["presence_command", "request_command"]


async def request(
    reactor: Any, *, connect: Connect, message: Message, reply: str | None, as_json: bool, timeout: float
) -> int:
    """Send *message*, and print the reply."""
    client = connect(reactor, timeout=timeout)
    try:
        await client.connect()
        answer = await client.request(message, reply_command=reply)
        if as_json:
            write_line(message_json(answer))
        else:
            write_body(answer.body)
        return Exit.OK
    finally:
        await client.close()


@click.command("request")
@click.argument("command", metavar="COMMAND", callback=check_command)
@click.argument("body", metavar="[BODY]", required=False)
@click.option(
    "--file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Send the content of FILE; '-' is the standard input.",
)
@header_option
@click.option("--reply", metavar="COMMAND", help="Command of the reply.  [default: that of the request]")
@click.option("--json", "as_json", is_flag=True, help="Print the whole reply as one line of JSON.")
@answer_timeout
@login_options
@connection_options
def request_command(
    command: str,
    body: str | None,
    file: Path | None,
    headers: list[tuple[str, str]],
    reply: str | None,
    as_json: bool,
    **common: Any,
) -> int:
    """
    Send a message to a processor, and print the body of its reply.

    Without BODY and --file, the body is empty. The command fails if no processor replies.
    """
    if body is not None and file is not None:
        raise click.UsageError("give only one of BODY and --file")
    data = b"" if body is None else body.encode("utf-8", "surrogateescape")
    if file is not None:
        data = read_body(None if str(file) == "-" else file)
    try:
        data.decode("utf-8")
        binary = False
    except UnicodeDecodeError:
        binary = True
    message = Message(command, headers, data, binary=binary)
    return run_client(request, **common, message=message, reply=reply, as_json=as_json)


async def presence(reactor: Any, *, connect: Connect, channel: str, as_json: bool, timeout: float) -> int:
    """Print who is in *channel*."""
    client: Client = connect(reactor, timeout=timeout)
    try:
        await client.connect()
        answer = await client.request("presence", {"channel": channel})
        found = answer.json()
        if as_json:
            write_line(json.dumps(found, ensure_ascii=False))
            return Exit.OK
        for person in found["people"]:
            name = "(no name)" if person["user"] is None else escaped(person["user"])
            write_line(f"{name}\t{len(person['connections'])}")
        listed = len(found["people"])
        if listed < found["count"]:
            click.echo(f"lhttp: {found['count'] - listed} more people are not listed", err=True)
        if found.get("complete") is False:
            click.echo("lhttp: not complete: the node does not hear all other nodes of its cluster", err=True)
        return Exit.OK
    finally:
        await client.close()


@click.command("presence")
@click.argument("channel", metavar="CHANNEL", callback=check_channel_name)
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as one line of JSON.")
@answer_timeout
@login_options
@connection_options
def presence_command(channel: str, as_json: bool, **common: Any) -> int:
    """
    Print who is in a channel: a line for each person, with the number of connections.

    The server must keep the presence of the channel and allow you to subscribe to it. To see who comes and goes, use
    "lhttp subscribe '$presence.CHANNEL'".
    """
    return run_client(presence, **common, channel=channel, as_json=as_json)
