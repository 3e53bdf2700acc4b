"""
``lhttp history``: prints earlier messages of a channel, one line for each.
"""

from __future__ import annotations

from typing import Any

import click

from lhttp_tx.client.client import Client
from lhttp_tx.client.command.login_options import Connect
from lhttp_tx.client.command.parameters import (
    answer_timeout,
    check_channel_name,
    check_position,
    connection_options,
    login_options,
)
from lhttp_tx.client.command.running import Exit, run_client
from lhttp_tx.client.command.text import message_json, one_line, say, write_line
from lhttp_tx.client.results import HistoryPage
from lhttp_tx.codec.message import Message

__all__ = ["history_command"]

_MAX_LIMIT = 100_000
"""The most messages to print. The command keeps them in memory, because it prints the oldest one first."""


async def history(
    reactor: Any,
    *,
    connect: Connect,
    channel: str,
    limit: int,
    since: str | None,
    before: str | None,
    as_json: bool,
    timeout: float,
) -> int:
    """
    Print up to *limit* messages of *channel*, oldest first: those after *since*; else the newest ones, or those before
    *before*.
    """
    client = connect(reactor, timeout=timeout)

    def write(message: Message, page: HistoryPage) -> None:
        position = page.position_of(message)
        write_line(message_json(message, channel, position) if as_json else f"{channel}\t{one_line(message)}")

    try:
        await client.connect()
        if since is not None:
            await _write_forward(client, channel, limit, since, write)
            return Exit.OK
        pages: list[tuple[Message, HistoryPage]] = []
        while True:
            page = await client.history(channel, limit=limit - len(pages), before=before, order="newest")
            pages += [(message, page) for message in page]
            before = page.start
            if not page.more or before is None or len(pages) >= limit:
                break
        for message, its_page in reversed(pages):
            write(message, its_page)
        if page.more and before is not None:
            say(f"there are older messages: --before {before}")
        return Exit.OK
    finally:
        await client.close()


async def _write_forward(client: Client, channel: str, limit: int, since: str, write: Any) -> None:
    """Print the messages after *since*, page by page."""
    left = limit
    while True:
        page = await client.history(channel, limit=left, since=since)
        if page.missed:
            say(f"messages are missing: the history of {channel} does not reach back to {since}")
        for message in page:
            write(message, page)
        left -= len(page)
        since = page.position
        if not page.more or not page.messages or left <= 0:
            break
    if page.more:
        say(f"there are newer messages: --since {since}")


@click.command("history")
@click.argument("channel", metavar="CHANNEL", callback=check_channel_name)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, _MAX_LIMIT),
    default=100,
    show_default=True,
    help="Print at most N messages.",
)
@click.option("--before", metavar="POSITION", callback=check_position, help="Print only messages before this position.")
@click.option(
    "--since",
    metavar="POSITION",
    callback=check_position,
    help="Print the first messages after this position, instead of the newest ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each message as one line of JSON, with its position.")
@answer_timeout
@login_options
@connection_options
def history_command(channel: str, limit: int, before: str | None, since: str | None, **common: Any) -> int:
    """
    Print the last messages of a channel, the oldest first.

    The server must keep a history of the channel and allow you to subscribe to it. The format is that of "lhttp
    subscribe". --json prints positions. If there are more messages, a line on the standard error contains the option
    for the next ones.
    """
    if since is not None and before is not None:
        raise click.UsageError("give only one of --since and --before")
    return run_client(history, **common, channel=channel, limit=limit, before=before, since=since)
