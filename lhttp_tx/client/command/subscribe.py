"""
``lhttp subscribe``: prints publications, one line for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import click
from twisted.internet.defer import Deferred

from lhttp_tx.client.client import Client, State
from lhttp_tx.client.command.events import listen
from lhttp_tx.client.command.login_options import Connect, choose_login
from lhttp_tx.client.command.parameters import check_subscriptions, connection_options, login_options
from lhttp_tx.client.command.running import Exit, run_client
from lhttp_tx.client.command.text import message_json, one_line, say, write_line
from lhttp_tx.client.errors import ClientClosed, LoginFailed
from lhttp_tx.client.positions import FilePositions, PositionStore
from lhttp_tx.client.subscription import Subscription
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.positions import format_position, parse_positions
from lhttp_tx.codec.wildcards import is_wildcard
from lhttp_tx.errors import LHTTPError, RemoteProtocolError

__all__ = ["subscribe_command"]

_UNAVAILABLE = 503


@final
class _Written:
    """
    Stores the positions of the messages that were printed. Messages that arrive after the last of them do not count.
    """

    def __init__(self, path: Path) -> None:
        self._file = FilePositions(path)
        self._end: Mapping[str, str] | None = None

    def load(self) -> Mapping[str, str]:
        """See :class:`~lhttp_tx.client.positions.PositionStore`."""
        try:
            return self._file.load()
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        except OSError as error:
            raise click.BadParameter(f"{error.filename}: {error.strerror}", param_hint="--positions") from None

    def save(self, positions: Mapping[str, str]) -> None:
        """See :class:`~lhttp_tx.client.positions.PositionStore`."""
        self._file.save(positions if self._end is None else self._end)

    def end(self, positions: Mapping[str, str]) -> None:
        """Store these positions, because nothing more is printed."""
        self._end = positions


@final
class _Output:
    """
    Prints messages.

    :ivar done: succeeds with the exit status at the end, or fails with an error.
    :ivar client: the client.
    :ivar is_connected: whether the first connection was made.
    :ivar late_error: an error that has come after the end; or ``None``.
    """

    def __init__(self, *, as_json: bool, count: int | None, kept: _Written | None) -> None:
        self.done: Deferred[int] = Deferred()
        self.client: Client
        self.is_connected = False
        self._as_json = as_json
        self._count = count
        self._kept = kept
        self._written = 0
        self._is_lost = False
        self.late_error: LHTTPError | None = None

    def show(self, message: Message, channel: str) -> None:
        """Print a message."""
        if self.done.called:
            return
        try:
            position = self.client.position(channel) if "offset" in message.headers else None
            write_line(message_json(message, channel, position) if self._as_json else f"{channel}\t{one_line(message)}")
        except OSError as error:
            self.fail(error)
            return
        self._written += 1
        if self._written == self._count:
            self.end(Exit.OK)

    def state_changed(self, state: State, reason: str) -> None:
        """Report a change of the connection."""
        if state is State.WAITING and self.is_connected:
            self._is_lost = True
            say(f"{reason}; trying again")
        elif state is State.CONNECTED and self._is_lost:
            self._is_lost = False
            say("connected again")
        elif state is State.CLOSED and self.is_connected:
            self.fail(ClientClosed(reason))

    def failed(self, error: LHTTPError) -> None:
        """Report an error, if the connection stays. Otherwise end with it."""
        if isinstance(error, LoginFailed) or error.status == _UNAVAILABLE:
            say(error.reason)  # the connection stays
        elif self.done.called:
            self.late_error = error
        else:
            self.fail(error)

    def confirmed(self, _: object, channel: str) -> None:
        """Report if a channel has no history, although the user asked for earlier messages."""
        if self.client.position(channel) is None and not self.done.called:
            say(f"{channel}: the server keeps no history of this channel; only new messages are printed")

    def told_unsure(self, subscription: Subscription) -> None:
        """Report if the server does not know whether publications of all nodes arrive."""
        if subscription.unsure and not self.done.called:
            say(f"{subscription.channel}: a node of the cluster did not answer; its publications may be missing")

    def recovered(self, channel: str, count: int, position: str) -> None:
        """Report recovered messages."""
        if count:
            say(f"{channel}: recovered {count} missed messages, up to position {position}")

    def missed(self, channel: str, position: str | None) -> None:
        """Report that messages are missing."""
        after = "" if position is None else f"; the channel continues after position {position}"
        say(f"{channel}: messages are missing, and the server does not have them any more{after}")

    def time_is_up(self, seconds: float) -> None:
        """End because the time is up."""
        if self._count is not None and not self.done.called:
            say(f"{self._written} of {self._count} messages came within {seconds:g} seconds")
        self.end(Exit.OK if self._count is None else Exit.FAILED)

    def end(self, status: int) -> None:
        """End with an exit status."""
        if not self.done.called:
            self._stop()
            self.done.callback(status)

    def fail(self, error: Exception) -> None:
        """End with an error."""
        if not self.done.called:
            self._stop()
            self.done.errback(error)

    def _stop(self) -> None:
        if self._kept is not None:
            self._kept.end(self.client.positions())


async def subscribe(
    reactor: Any,
    *,
    connect: Connect,
    channels: list[str],
    since: Mapping[str, str],
    last: int | None,
    positions: Path | None,
    as_json: bool,
    count: int | None,
    limit: float | None,
) -> int:
    """Print publications to *channels* until *count* messages have come, or *limit* seconds have passed."""
    kept = None if positions is None else _Written(positions)
    output = _Output(as_json=as_json, count=count, kept=kept)
    store: PositionStore | None = kept
    client = output.client = connect(
        reactor,
        on_state=output.state_changed,
        on_error=output.failed,
        on_recovered=output.recovered,
        on_missed=output.missed,
        positions=store,
    )
    try:
        for channel in channels:
            newest = None if is_wildcard(channel) else last
            subscription = client.subscribe(channel, output.show, named=True, since=since.get(channel), last=newest)
            if (kept or since or last) and not is_wildcard(channel):
                subscription.confirmed().addCallbacks(output.confirmed, lambda _: None, callbackArgs=(channel,))
            subscription.confirmed().addCallbacks(output.told_unsure, lambda _: None)
        await client.connect()
        output.is_connected = True
        if limit is not None:
            reactor.callLater(limit, output.time_is_up, limit)
        status = await output.done
    finally:
        output.is_connected = False
        output.done.addErrback(lambda _: None)
        await client.close()
    if output.late_error is not None:
        raise output.late_error
    return status


def _since(channels: tuple[str, ...], text: str | None) -> dict[str, str]:
    """Return the positions in the value of ``--since``, by channel."""
    if text is None:
        return {}
    try:
        named = [channel for channel in channels if not is_wildcard(channel)]
        found = parse_positions(text, named)
    except RemoteProtocolError as error:
        raise click.BadParameter(
            f"{error.reason}; give one POSITION, or CHANNEL=POSITION for each channel", param_hint="--since"
        ) from None
    return {channel: format_position(*position) for channel, position in found.items()}


def _headers(
    url: str,
    token_file: Path | None,
    user: str | None,
    password_file: Path | None,
    plaintext_login: bool,
    codec: str,
    **_: Any,
) -> dict[str, str]:
    """Return the HTTP headers with the credentials for an event stream."""
    if codec != "text":
        raise click.UsageError("--codec is for a WebSocket; an event stream has JSON")
    login = choose_login(url, token_file, user, password_file, plaintext_login)
    if login is None:
        return {}
    login.login()  # reads the secret for the headers
    return login.headers()


@click.command("subscribe")
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True, callback=check_subscriptions)
@click.option("--json", "as_json", is_flag=True, help="Write each message as one line of JSON.")
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End after N messages.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="End after this time. With --count, the command then fails.",
)
@click.option(
    "--since",
    metavar="POSITION",
    help="First print the messages after this position. For several channels, give 'CHANNEL=POSITION "
    "CHANNEL=POSITION'.",
)
@click.option(
    "--last", metavar="N", type=click.IntRange(min=1), help="First print the last N messages of each channel."
)
@click.option(
    "--positions",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Store the position of each channel in FILE. The next run with this FILE first prints the messages that it "
    "has missed.",
)
@click.option("--sse", is_flag=True, help="Read an event stream, GET /events, instead of a WebSocket.")
@login_options
@connection_options
def subscribe_command(
    channels: tuple[str, ...],
    as_json: bool,
    count: int | None,
    timeout: float | None,
    since: str | None,
    last: int | None,
    positions: Path | None,
    sse: bool,
    **common: Any,
) -> int:
    """
    Print the messages of channels, one line for each.

    A CHANNEL may be a wildcard if the server allows it: 'room.*' (one token) or 'room.>' (one or more tokens). It may
    be '$presence.CHANNEL', which shows who joins and leaves a channel. Put quotes around these names.

    A line is the channel, a tab, and the body. Line breaks, tabs and backslashes in the body are escaped as in C. If
    the connection is lost, the command reconnects and reports this on the standard error. If the server keeps a history
    of a channel, the command then prints the messages that it has missed, or reports that messages are missing.

    --since, --last and --positions need a history, too; without one, the command says so. With --positions, --last
    applies only to channels that are not in the file yet. If the command is killed, the next run may print the messages
    of the last second again.
    """
    if since is not None and last is not None:
        raise click.UsageError("give only one of --since and --last")
    names = list(dict.fromkeys(channels))
    if sse:
        if positions is not None:
            raise click.UsageError("--positions needs a WebSocket; leave --sse out")
        done = listen(
            common["url"],
            ca_file=common["ca_file"],
            headers=_headers(**common),
            channels=names,
            since=_since(channels, since),
            last=last,
            as_json=as_json,
            count=count,
            limit=timeout,
        )
        return Exit.OK if done else Exit.FAILED
    return run_client(
        subscribe,
        **common,
        channels=names,
        since=_since(channels, since),
        last=last,
        positions=positions,
        as_json=as_json,
        count=count,
        limit=timeout,
    )
