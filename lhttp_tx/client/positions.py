"""
The positions of a client in the histories of its channels, and their storage between runs of the program.

Used by :mod:`lhttp_tx.client.registry`. Programs pass in a :class:`PositionStore`. This module uses no connection.
Source: the protocol document, section "History".
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from lhttp_tx.client.arguments import loaded
from lhttp_tx.codec.positions import format_position, parse_position
from lhttp_tx.errors import LHTTPError
from lhttp_tx.guard.files import read_file

__all__ = ["FilePositions", "PositionStore", "Positions"]

_log = Logger()

_MAX_CHANNELS = 10_000
"""The most positions that are loaded from a store. If there are more, the first ones are ignored."""

_MAX_SIZE = 16_777_216
"""The most bytes of a file with positions."""

_SAVE_INTERVAL = 1.0
"""
The fewest seconds between saving the positions twice. The first change is saved at once. Otherwise, a program that was
killed in its first second would know no position, and would not learn what it has missed.
"""


class PositionStore(Protocol):
    """Stores positions from one run of a program to the next."""

    def load(self) -> Mapping[str, str]:
        """Return the positions of the last :meth:`save`, by channel. Called once, when the client is created."""

    def save(self, positions: Mapping[str, str]) -> object:
        """
        Replace the stored positions.

        Called after a change, at most once a second, and when the client is closed. If it raises an exception, the
        client calls ``on_error``, and saves again after the next change, or when it is closed.
        """


@final
class FilePositions:
    """
    Stores positions in a file, as a JSON object. The file is replaced in one step, so it is always complete.

    Use one file for each client.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """:param path: the file. It need not exist, but its folder must."""
        self._path = Path(path)

    def load(self) -> Mapping[str, str]:
        """
        See :class:`PositionStore`. If the file does not exist, there are no positions.

        :raises ValueError: if the file is not a regular file with a JSON object of strings, or has more than 16 MiB.
        :raises OSError: if the file cannot be read, or if its folder does not exist or is not writable.
        """
        folder = self._path.parent
        if not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such folder for positions", str(folder))
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "positions cannot be written to this folder", str(folder))
        try:
            data = read_file(self._path, most=_MAX_SIZE)
        except FileNotFoundError:
            return {}
        try:
            found = json.loads(data.decode("utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(position, str) for position in found.values()):
            raise ValueError(
                f"{self._path} is not a file with positions: use another file, or remove it to start again"
            )
        return found

    def save(self, positions: Mapping[str, str]) -> None:
        """
        See :class:`PositionStore`.

        :raises OSError: if the file cannot be written. An existing file is then not changed.
        """
        written = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        try:
            with written.open("w", encoding="utf-8") as stream:
                json.dump(positions, stream, indent=0, ensure_ascii=False)
                stream.write("\n")
                stream.flush()
                os.fsync(stream.fileno())
            written.replace(self._path)
        except OSError as error:
            written.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        except BaseException:
            written.unlink(missing_ok=True)
            raise

    def __repr__(self) -> str:
        return f"<FilePositions {self._path}>"


@final
class Positions:
    """The positions of one client: for each channel, the epoch and the offset of the last message that arrived."""

    def __init__(self, store: PositionStore | None, *, reactor: Any, report: Callable[[LHTTPError], object]) -> None:
        """
        :param store: stores the positions between runs of the program; ``None``: nothing does.
        :param reactor: the reactor.
        :param report: called with an error when the store fails.
        :raises Exception: any exception of ``store.load``.
        :raises ValueError: if ``store.load`` does not return a mapping of str to str.
        :raises RemoteProtocolError: if ``store.load`` returns a malformed position.
        """
        self._store = store
        self._reactor = reactor
        self._report = report
        self._seen: set[str] = set()
        self._saving: IDelayedCall | None = None
        self._behind: Callable[[str, bool], tuple[str, int] | None] = lambda _, in_hand: None
        self._is_interrupted = False
        found = [] if store is None else [*loaded(store.load()).items()][-_MAX_CHANNELS:]
        self._known = {channel: parse_position(position) for channel, position in found}
        self._saved = self._all(in_hand=False)
        self._saved_at = float("-inf")

    def attach(self, behind: Callable[[str, bool], tuple[str, int] | None]) -> None:
        """
        Set the function that knows the messages in buffers.

        :param behind: returns the position just before the oldest message of a channel that is still in a buffer;
            ``None`` if there is none. Its second argument is whether a message that the program has taken, and may
            still be handling, counts as one in the buffer.
        """
        self._behind = behind

    def get(self, channel: str) -> tuple[str, int] | None:
        """Return the epoch and the offset of the last message that has arrived; ``None`` if they are not known."""
        return self._known.get(channel)

    def is_seen(self, channel: str) -> bool:
        """Return whether the position is that of a message that has arrived, rather than that of a receipt."""
        return channel in self._seen

    def text(self, channel: str) -> str | None:
        """Return the position of the last message that has arrived; ``None`` if it is not known."""
        found = self._known.get(channel)
        return None if found is None else format_position(*found)

    def taken(self, channel: str) -> str | None:
        """Return the position of the last message that the program has got; ``None`` if it is not known."""
        found = self._known.get(channel)
        return None if found is None else format_position(*(self._behind(channel, False) or found))

    def all_taken(self) -> dict[str, str]:
        """Return the positions of the last messages that the program has got, by channel."""
        return self._all(in_hand=False)

    def _all(self, *, in_hand: bool) -> dict[str, str]:
        known = self._known.items()
        return {channel: format_position(*(self._behind(channel, in_hand) or found)) for channel, found in known}

    def interrupted(self) -> None:
        """
        Note that an error has ended the program's work with the messages that it has taken last. So :meth:`close` saves
        the positions before them.
        """
        self._is_interrupted = True

    def took(self, channel: str, offset: int) -> None:
        """Note that the message at *offset* has arrived."""
        self._known[channel] = self._known[channel][0], offset
        self._seen.add(channel)
        self.changed()

    def put(self, channel: str, position: str | None) -> None:
        """
        Set the position of a channel. ``None`` removes it.

        :raises RemoteProtocolError: if the position is malformed.
        """
        self._seen.discard(channel)
        if position is not None:
            self._known[channel] = parse_position(position)
        elif self._known.pop(channel, None) is None:
            return
        self.changed()

    def advance(self, channel: str, position: str) -> None:
        """
        Note that all messages up to *position* have arrived. If a later position of the same epoch is known, it stays.
        """
        found, known = parse_position(position), self._known.get(channel)
        if known is None or known[0] != found[0] or known[1] < found[1]:
            self._known[channel] = found
            self._seen.discard(channel)
            self.changed()

    def changed(self) -> None:
        """Note that there may be something to save."""
        if self._store is not None and self._saving is None:
            left = self._saved_at + _SAVE_INTERVAL - self._reactor.seconds()
            self._saving = self._reactor.callLater(max(0.0, left), self._save)

    def _save(self, *, in_hand: bool = True) -> None:
        """:param in_hand: whether the program may still be handling the messages that it has taken last."""
        self._saving = None
        if self._store is None:
            return
        positions, self._saved_at = self._all(in_hand=in_hand), self._reactor.seconds()
        try:
            self._store.save(positions)
            self._saved = positions
        except Exception as error:
            if not isinstance(error, (OSError, LHTTPError)):
                _log.failure("{store} failed", store=self._store)
            why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
            self._report(LHTTPError(f"cannot save the positions: {why}"))

    def close(self) -> None:
        """Save changes that are not saved yet. Without a store, forget the positions."""
        self._seen.clear()
        if self._store is None:
            self._known.clear()
        elif self._saving is not None or self._saved != self._all(in_hand=self._is_interrupted):
            if self._saving is not None:
                self._saving.cancel()
            self._save(in_hand=self._is_interrupted)
        self._is_interrupted = False
