"""
Fragments: messages that come in several frames, or in several reads.

Pure functions, used by the WebSocket edges of server and client. Pieces are joined as they come, so a message in pieces
takes only the memory of its bytes. Many consecutive small frames are taken in one pass, as
:mod:`lhttp_tx.transports.websocket.reader` does with whole messages. This includes the frames that are skipped while
the connection closes.
"""

from __future__ import annotations

__all__ = ["LEAST_FRAGMENT", "Joined", "skip_frames", "take_fragmented", "take_fragments"]

LEAST_FRAGMENT = 64
"""
The fewest bytes of a message's limit that each frame uses up. This also limits the number of frames.

The limit for the WebSocket message is twice the limit for an LHTTP message. So a message of the largest LHTTP size may
come in frames of 32 bytes.
"""

_LARGE = 126
"""The size of a payload from which on frames have longer heads. The functions here leave such frames to Autobahn."""


_TEXT, _CLOSE = 0x01, 0x08
"""The first byte of a fragmented text message, and the opcode of a close frame."""


class Joined:
    """
    The received part of one message.

    A single piece is kept as it is. Only the second one causes a copy.
    """

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""

    def add(self, piece: bytes) -> None:
        """Add the next piece."""
        if not self._data:
            self._data = piece
        elif isinstance(self._data, bytearray):
            self._data += piece
        else:
            self._data = bytearray(self._data)
            self._data += piece

    def take(self) -> bytes:
        """Return the whole message. Do not use the object afterwards."""
        data, self._data = self._data, b""
        return bytes(data)  # itself, if it is bytes

    def __len__(self) -> int:
        return len(self._data)


def take_fragments(data: bytes, position: int) -> tuple[bytes, int, int]:
    """
    Return the payloads of consecutive small, whole fragments in *data*, up to the last one of a message.

    It stops before any other frame, and leaves that to Autobahn.

    :param data: the data of a read.
    :param position: the index in *data* where a frame begins, inside a fragmented message.
    :returns: the joined payloads; the bytes that the fragments lack to :data:`LEAST_FRAGMENT` each; and the index in
        *data* of the next frame.
    """
    end = len(data)
    short = 0
    masked: list[bytes] = []
    keys: list[bytes] = []
    while end - position >= 6 and not data[position]:
        size = data[position + 1] - 0x80
        stop = position + 6 + size
        if not 0 <= size < _LARGE or stop > end:
            break
        if size:
            masked.append(data[position + 6 : stop])
            keys.append(_key(data, position + 2, size))
        if size < LEAST_FRAGMENT:
            short += LEAST_FRAGMENT - size
        position = stop
    return _unmask(masked, keys), short, position


def take_fragmented(data: bytes, position: int, max_size: int) -> tuple[list[bytes], bool, int]:
    """
    Return consecutive messages of one kind in *data* that are whole and in small fragments.

    Like :func:`lhttp_tx.transports.websocket.reader.take_messages`, it takes only simple, valid frames. If a frame is
    not valid, too large, or not UTF-8, it leaves the whole message to Autobahn.

    :param data: the data of a read.
    :param position: the index in *data* where the first frame of a fragmented message begins.
    :param max_size: bytes of a message. Each fragment counts as at least :data:`LEAST_FRAGMENT`.
    :returns: the payloads; whether they are binary; and the index in *data* of the next frame.
    """
    kind, end, place = data[position], len(data), position
    masked: list[bytes] = []
    keys: list[bytes] = []
    ends: list[tuple[int, int, int]] = []  # the end of each message: in the payloads, in the fragments, in the data
    size, room = 0, max_size
    is_first = True
    while end - place >= 6:
        head, length = data[place], data[place + 1] - 0x80
        stop = place + 6 + length
        if (head != kind if is_first else head & 0x7F) or not 0 <= length < _LARGE or stop > end:
            break
        room -= max(length, LEAST_FRAGMENT)
        if room < 0:
            break
        masked.append(data[place + 6 : stop])
        keys.append(_key(data, place + 2, length))
        size += length
        place = stop
        is_first = head >= 0x80
        if is_first:
            ends.append((size, len(masked), place))
            room = max_size
    if not ends:
        return [], False, position
    count = ends[-1][1]
    plain = _unmask(masked[:count], keys[:count])
    is_text = kind == _TEXT and not plain.isascii()
    payloads: list[bytes] = []
    begin = 0
    for stop, _, place in ends:
        payload = plain[begin:stop]
        if is_text and not _is_utf8(payload):
            break
        payloads.append(payload)
        begin, position = stop, place
    return payloads, kind != _TEXT, position


def skip_frames(data: bytes, position: int) -> int:
    """
    Return the index in *data* of the first frame that is a close frame, is not masked, or whose length is incomplete.

    The index may be past the end of *data*. Then this many bytes of the next data belong to a skipped frame.

    :param data: the data of a read.
    :param position: the index in *data* where a frame begins.
    """
    end = len(data)
    while end - position >= 2:
        length = data[position + 1] - 0x80
        if length < 0 or data[position] & 0x0F == _CLOSE:
            break
        if length < _LARGE:
            position += 6 + length
            continue
        size = 2 if length == _LARGE else 8
        if end - position < 2 + size:
            break
        position += 6 + size + int.from_bytes(data[position + 2 : position + 2 + size], "big")
    return position


def _key(data: bytes, position: int, size: int) -> bytes:
    """Return the key at *position*, repeated to the length of its payload."""
    if size <= 4:
        return data[position : position + size]
    return (data[position : position + 4] * ((size + 3) >> 2))[:size]


def _unmask(masked: list[bytes], keys: list[bytes]) -> bytes:
    payload = b"".join(masked)
    number = int.from_bytes(payload, "little") ^ int.from_bytes(b"".join(keys), "little")
    return number.to_bytes(len(payload), "little")


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
