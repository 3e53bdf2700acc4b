"""
``lhttp chat``: an interactive chat on a terminal; or without a terminal, a connection between pipes and a room.

On a terminal, prompt_toolkit edits the line while messages appear above it. It runs on asyncio, so this module installs
the asyncio reactor.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout
from twisted.internet.defer import Deferred

from lhttp_tx.client.client import State
from lhttp_tx.client.command.login_options import Connect
from lhttp_tx.client.command.parameters import check_channel_name, check_url, connection_options, login_options
from lhttp_tx.client.command.running import Exit, run_client
from lhttp_tx.client.command.text import LineReader, printable, write_line
from lhttp_tx.client.results import Published
from lhttp_tx.client.subscription import Subscription
from lhttp_tx.codec.channels import check_channel
from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError

__all__ = ["Chat", "chat_command"]

HELP = "/name NAME changes your name, /room ROOM goes to another room, /quit or Ctrl-D ends; //text sends /text"

_COLORS = (32, 33, 34, 35, 36, 92, 93, 94, 95, 96)
_MAX_NAME_LENGTH = 32

_SHOWN = 50
"""The most old messages that are shown on entering a room, if the server keeps a history."""


class _Stop(Exception):
    """Ctrl-D at the prompt."""


class _Interrupt(Exception):
    """Ctrl-C at the prompt. KeyboardInterrupt would stop asyncio's loop at an arbitrary point."""


class Chat:
    """
    One person in one room.

    :ivar name: the name that is sent with each message.
    :ivar room: the channel.
    :ivar failures: the number of lines that were not published.
    :ivar client: the client.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        connect: Connect,
        room: str,
        name: str,
        color: bool,
        write: Callable[[str], None],
        notes: Callable[[str], None],
    ) -> None:
        """
        :param reactor: the reactor.
        :param connect: makes the client.
        :param room: the channel.
        :param name: the person's name.
        :param color: whether to use colours.
        :param write: called with each line of the conversation.
        :param notes: called with each note about the connection.
        :raises ValueError: if *name* cannot be sent.
        """
        self.name = checked_name(name)
        self.room = room
        self.failures = 0
        self._color = color
        self._write = write
        self._notes = notes
        self._told = ""
        self._has_joined = False
        self._is_leaving = False
        self._is_moving = False
        self._subscription: Subscription | None = None
        self._sending: list[Deferred[Published]] = []
        self.client = connect(reactor, on_state=self._state_changed, on_error=self._error, on_missed=self._missing)

    async def enter(self) -> None:
        """Connect and join the room. Raises the errors of the server or of the network."""
        self._subscription = self.client.subscribe(self.room, self._show, last=_SHOWN)
        await self.client.connect()
        await self._subscription
        self.note(f"you are {self.name} in {self.room}")

    async def take_line(self, line: str) -> bool:
        """Handle a line that was typed. Return ``False`` if it ends the chat."""
        text = line.strip()
        command, _, argument = text.partition(" ")
        argument = argument.strip()
        if not text:
            return True
        if command == "/quit":
            return False
        if command == "/help":
            self.note(HELP)
        elif command in ("/name", "/room") and argument:
            try:
                await (self._rename(argument) if command == "/name" else self._move(argument))
            except (LHTTPError, ValueError) as error:
                self.note(str(error), bad=True)
        elif text.startswith("/") and not text.startswith("//"):
            self.note(f"no such command, or something is missing: {command}. {HELP}", bad=True)
        else:
            self.say(text[1:] if text.startswith("//") else text)
        return True

    def say(self, text: str) -> None:
        """Publish a line. If this fails, write a note."""
        try:
            sent = self.client.publish(self.room, "chat", [("from", self.name)], text)
        except LHTTPError as error:
            self._not_sent(error)
            return
        self._sending.append(sent)

        def done(result: Any) -> None:
            self._sending.remove(sent)
            if not isinstance(result, Published):
                self._not_sent(result.value)

        sent.addBoth(done)
        if self.client.state is not State.CONNECTED:
            self.note("not connected: this will be sent later")

    async def leave(self) -> None:
        """Wait until the server has answered all lines, then close the client."""
        while self._sending:
            await Deferred.fromCoroutine(_settled(self._sending[0]))
        self._is_leaving = True
        await self.client.close()

    def note(self, text: str, *, bad: bool = False) -> None:
        """Write a note about the chat itself."""
        self._notes(self._paint(f"* {text}", 31 if bad else 90))

    async def _rename(self, name: str) -> None:
        self.name = checked_name(name)
        self.note(f"you are {self.name} now")

    async def _move(self, room: str) -> None:
        check_channel(room)
        if room == self.room:
            return
        self._is_moving = True
        try:
            joined = await self.client.subscribe(room, self._show, last=_SHOWN)
        finally:
            self._is_moving = False
        old, self._subscription, self.room = self._subscription, joined, room
        if old is not None:
            await old.unsubscribe()
        self.note(f"you are in {room} now")

    def _show(self, message: Message) -> None:
        text = message.body.decode("utf-8", "replace")
        if not text:
            return
        name = printable(message.headers.get("from") or "?")[:_MAX_NAME_LENGTH]
        color = _COLORS[zlib.crc32(name.encode("utf-8", "replace")) % len(_COLORS)]
        first, *others = [printable(line) for line in text.splitlines() or [""]]
        # Old messages come before the room has been entered. Their time is not known.
        comes_late = self._is_moving or self.client.state is not State.CONNECTED
        clock = "--:--" if comes_late else time.strftime("%H:%M")
        self._write(f"{self._paint(clock, 90)} {self._paint(name, color)}: {first}")
        for line in others:
            self._write(f"      {self._paint('|', 90)} {line}")

    def _state_changed(self, state: State, reason: str) -> None:
        if state is State.WAITING and self._has_joined and reason != self._told:
            self._told = reason
            self.note(f"{printable(reason)}; trying to connect again", bad=True)
        elif state is State.CONNECTED:
            if self._has_joined:
                self.note("connected again")
            self._has_joined, self._told = True, ""
        elif state is State.CLOSED and self._has_joined and not self._is_leaving:
            self.note(f"{printable(reason)}; the chat is over: /quit ends it", bad=True)

    def _missing(self, channel: str, position: str | None) -> None:
        self.note(f"messages of {printable(channel)} are missing here", bad=True)

    def _error(self, error: LHTTPError) -> None:
        self.note(f"the server says {error.status}: {printable(error.reason)}", bad=True)

    def _not_sent(self, error: Any) -> None:
        self.failures += 1
        self.note(f"not sent: {printable(getattr(error, 'reason', None) or str(error))}", bad=True)

    def _paint(self, text: str, color: int) -> str:
        return f"\x1b[{color}m{text}\x1b[0m" if self._color else text


async def _settled(deferred: Deferred[Any]) -> None:
    waiting: Deferred[None] = Deferred()

    def done(result: Any) -> Any:
        waiting.callback(None)
        return result

    deferred.addBoth(done)
    await waiting


def checked_name(name: str) -> str:
    """
    Return *name* without blanks at its ends.

    :raises ValueError: if it is not 1 to 32 visible characters.
    """
    name = name.strip()
    if not name or len(name) > _MAX_NAME_LENGTH or not name.isprintable():
        raise ValueError(f"a name is 1 to {_MAX_NAME_LENGTH} visible characters, {name!a} is not")
    return name


async def chat(
    reactor: Any,
    *,
    connect: Connect,
    room: str,
    name: str,
    color: bool,
    interactive: bool,
    history: str | None,
) -> int:
    """Run ``lhttp chat``."""
    settings: dict[str, Any] = {"connect": connect, "room": room, "name": name, "color": color}
    if interactive:
        return await _chat_on_terminal(reactor, settings, FileHistory(history) if history else InMemoryHistory())
    return await _chat_by_pipe(reactor, settings)


async def _chat_by_pipe(reactor: Any, settings: dict[str, Any]) -> int:
    """Send each line of the standard input. If the reader of the standard output has ended, the command ends."""
    broken: list[BrokenPipeError] = []
    line: Deferred[str | None] = Deferred()

    def write(text: str) -> None:
        try:
            write_line(text)
        except BrokenPipeError as error:
            broken.append(error)
            if not line.called:
                line.callback(None)

    def note(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    room = Chat(reactor, write=write, notes=note, **settings)
    try:
        await room.enter()
        reader = LineReader(reactor)
        while not broken:
            line = Deferred()
            reader.take(lambda text, line=line: None if line.called else line.callback(text))  # type: ignore[misc]
            text = await line
            if text is None or not await room.take_line(text):
                break
    finally:
        await room.leave()
    if broken:
        raise broken[0]
    return Exit.FAILED if room.failures else Exit.OK


async def _chat_on_terminal(reactor: Any, settings: dict[str, Any], history: History) -> int:
    """Edit lines at the bottom of the terminal, while the conversation continues above."""
    room = Chat(reactor, write=_print, notes=_print, **settings)
    session: PromptSession[str] = PromptSession(
        history=history, erase_when_done=True, interrupt_exception=_Interrupt, eof_exception=_Stop
    )
    prompt = "\x1b[1m{}\x1b[0m> " if settings["color"] else "{}> "
    loop = asyncio.get_event_loop_policy().get_event_loop()
    try:
        await room.enter()
        room.note(HELP)
        with patch_stdout(raw=True):
            while True:
                asked = session.prompt_async(lambda: ANSI(prompt.format(room.name)))
                try:
                    line = await Deferred.fromFuture(asyncio.ensure_future(asked, loop=loop))
                except _Stop:
                    break
                except _Interrupt:
                    return Exit.INTERRUPTED
                if not await room.take_line(line):
                    break
    finally:
        await room.leave()
    return Exit.OK


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def install_reactor() -> None:
    """Install the asyncio reactor, which prompt_toolkit needs. Call this before any other reactor is installed."""
    from twisted.internet import asyncioreactor

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)


def _name(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return checked_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("chat")
@click.argument("address", metavar="[URL]", required=False)
@click.option(
    "--room", metavar="CHANNEL", default="chatroom", show_default=True, callback=check_channel_name, help="The room."
)
@click.option(
    "--name", metavar="NAME", envvar="USER", default="guest", callback=_name, help="Your name.  [default: $USER]"
)
@click.option(
    "--history", metavar="FILE", type=click.Path(dir_okay=False), help="Store the lines that you type in this file."
)
@click.option("--color/--no-color", default=None, help="Use colours. Default: if the terminal supports them.")
@login_options
@connection_options
def chat_command(
    address: str | None, room: str, name: str, history: str | None, color: bool | None, url: str, **common: Any
) -> int:
    """
    Chat in a room.

    On a terminal, type a line to send it. The arrow keys bring back earlier lines. /help lists the commands. Without a
    terminal, the command sends each line of the standard input and then ends.

    If the server keeps a history of the room, the command first shows the last 50 messages. After a loss of the
    connection, it shows what you have missed. If messages are missing, a line says so. The time of an old message is
    shown as --:--, because it is not known.
    """
    if address is not None:
        url = check_url(click.get_current_context(), None, address)  # type: ignore[arg-type]
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if color is None:
        color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if interactive:
        install_reactor()
    return run_client(
        chat, url=url, **common, room=room, name=name, color=color, interactive=interactive, history=history
    )
