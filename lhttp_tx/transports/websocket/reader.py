"""
The fast lane: takes whole data frames out of the data of one read, in one pass.

Pure functions, used by :mod:`lhttp_tx.transports.websocket.protocol`. They take only simple frames: final, masked text
and binary frames without extension bits, whole, with the shortest encoding of their length, and with valid UTF-8 if
they are text (RFC 6455, section 5.2). They stop before any other frame, and leave it to Autobahn's state machine. So
Autobahn decides what is legal, with and without the fast lane.

Many small frames are unmasked together: their keys are joined, and one operation on one large integer unmasks all of
them. A burst of a program mostly has frames of one size. Their heads are then checked together, and their keys are
joined together, too. Large frames are unmasked by translation tables, which cost more at first, and less for each byte.
"""

from struct import Struct

__all__ = ["frames_size", "take_messages"]

_TEXT = 0x81
_BINARY = 0x82

_LARGE = 1_000
"""The size of a payload, in bytes, from which on translation tables are faster."""

_BATCH_SIZE = 16_384
"""Bytes after which small frames are unmasked even if more follow, so that the integers fit the processor's cache."""

_ALIKE_COUNT = 32
"""The number of consecutive small frames of one size from which on it pays to take them together."""

_XOR = [bytes(byte ^ mask for byte in range(256)) for mask in range(256)]
"""The table that unmasks with each byte of a mask."""


def take_messages(data: bytes, position: int, max_size: int) -> tuple[list[bytes], bool, int, bool]:
    """
    Return consecutive messages of one kind, text or binary, in *data*.

    :param data: the data of a read.
    :param position: the index in *data* where the first frame begins, outside a fragmented message.
    :param max_size: bytes of a payload. A larger one is left to Autobahn.
    :returns: the payloads; whether they are binary; the index in *data* of the next frame; and whether the following
        data could be taken too, either by another call or once more of it has arrived.
    """
    end = len(data)
    kind = data[position] if position < end else 0
    if position + 8 <= end <= position + _LARGE:
        second = data[position + 1]
        if 0x80 <= second < 0xFE:
            if position + second - 0x7A == end:
                return _take_only(data, position, position + 6, max_size)
        elif second == 0xFE and end - position - 8 == (data[position + 2] << 8 | data[position + 3]) > 125:
            return _take_only(data, position, position + 8, max_size)
    first = position
    payloads, begin = _take_alike(data, position, kind, max_size)
    position = begin
    starts: list[int] = []
    stops: list[int] = []
    keys: list[bytes] = []
    more = kind in (_TEXT, _BINARY)
    while more and end - position >= 6:
        second = data[position + 1]
        if data[position] != kind:
            more = data[position] in (_TEXT, _BINARY)
            break
        if 0x80 <= second < 0xFE:
            start = position + 6
            stop = start + second - 0x80
            if stop > end or second - 0x80 > max_size:
                more = stop > end and second - 0x80 <= max_size
                break
            # The key covers the whole frame. Its effect on the header does not matter.
            keys.append((data[position + 2 : start] * ((second - 0x75) >> 2))[2 : second - 0x78])
        else:
            start = position + 8
            size = data[position + 2] << 8 | data[position + 3] if start <= end else 126
            stop = start + size
            if second != 0xFE or size < 126 or size > max_size or stop > end:
                more = second == 0xFE and 126 <= size <= max_size
                break
            if size > _LARGE:
                if keys:
                    payloads += _unmask_batch(data[begin:position], keys, starts, stops, begin)
                payloads.append(_unmask_large(data[start:stop], data[start - 4 : start]))
                begin = position = stop
                continue
            keys.append((data[position + 4 : start] * ((size + 11) >> 2))[: size + 8])
        starts.append(start)
        stops.append(stop)
        position = stop
        if position - begin > _BATCH_SIZE:
            payloads += _unmask_batch(data[begin:position], keys, starts, stops, begin)
            alike, begin = _take_alike(data, position, kind, max_size)
            payloads += alike
            position = begin
    else:
        # An unmasked frame is illegal: leave it to Autobahn now.
        masked = end - position < 2 or data[position + 1] >= 0x80
        more = more and position < end and data[position] in (_TEXT, _BINARY) and masked
    if keys:
        payloads += _unmask_batch(data[begin:position], keys, starts, stops, begin)
    if kind == _TEXT and not b"".join(payloads).isascii():
        for index, payload in enumerate(payloads):
            try:
                payload.decode("utf-8")
            except UnicodeDecodeError:
                return payloads[:index], False, first + frames_size(payloads[:index]), False
    return payloads, kind == _BINARY, position, more


def frames_size(payloads: list[bytes]) -> int:
    """Return the size of the frames that :func:`take_messages` took *payloads* out of."""
    return sum(len(payload) + (6 if len(payload) < 126 else 8) for payload in payloads)


def _take_only(data: bytes, position: int, start: int, max_size: int) -> tuple[list[bytes], bool, int, bool]:
    """Return the result of :func:`take_messages` for data with a single frame, as in a chat."""
    kind = data[position]
    size = len(data) - start
    if kind not in (_TEXT, _BINARY) or size > max_size:
        return [], False, position, False
    key = int.from_bytes((data[start - 4 : start] * ((size + 3) >> 2))[:size], "little")
    payload = (int.from_bytes(data[start:], "little") ^ key).to_bytes(size, "little")
    if kind == _TEXT and not payload.isascii():
        try:
            payload.decode("utf-8")
        except UnicodeDecodeError:
            return [], False, position, False
    return [payload], kind == _BINARY, len(data), False


def _take_alike(data: bytes, position: int, kind: int, max_size: int) -> tuple[list[bytes], int]:
    """
    Return the payloads of the small frames from *position* on that have the same *kind* and size, and the index of
    their end.

    If frames have equal heads, they have equal sizes. So one step checks the bytes of *data* at equal distances, and
    looks only at the beginnings of frames.
    """
    if len(data) - position < _ALIKE_COUNT * 6 or not 0x80 <= data[position + 1] < 0xFE:
        return [], position
    size = data[position + 1] - 0x80
    if data[position] != kind or kind not in (_TEXT, _BINARY) or size > max_size:
        return [], position
    step = size + 6
    wanted, most = _ALIKE_COUNT, (len(data) - position) // step
    while True:  # go on only if all frames so far are alike, so that no work is wasted on others
        stop = position + min(wanted, most) * step
        count = min(_leading(data[position:stop:step]), _leading(data[position + 1 : stop : step]))
        if count < wanted:
            break
        wanted *= 4
    if count < _ALIKE_COUNT:
        return [], position
    payload = Struct(f"6x{size}s").iter_unpack
    payloads: list[bytes] = []
    batch_size = max(_ALIKE_COUNT * step, _BATCH_SIZE // step * step)
    stop = position + count * step
    while position < stop:
        masked = data[position : min(position + batch_size, stop)]
        keys = bytearray(len(masked))
        for byte in range(4):
            mask = masked[2 + byte :: step]
            for place in range(6 + byte, step, 4):
                keys[place::step] = mask
        number = int.from_bytes(masked, "little") ^ int.from_bytes(keys, "little")
        payloads += [found for (found,) in payload(number.to_bytes(len(masked), "little"))]
        position += len(masked)
    return payloads, stop


def _leading(values: bytes) -> int:
    """Return how many values directly after the first one equal it."""
    return len(values) - len(values.lstrip(values[:1]))


def _unmask_batch(masked: bytes, keys: list[bytes], starts: list[int], stops: list[int], begin: int) -> list[bytes]:
    """Return the payloads from *starts* to *stops*, relative to *begin*, and empty the lists."""
    number = int.from_bytes(masked, "little") ^ int.from_bytes(b"".join(keys), "little")
    plain = number.to_bytes(len(masked), "little")
    payloads = [plain[start - begin : stop - begin] for start, stop in zip(starts, stops, strict=True)]
    keys.clear()
    starts.clear()
    stops.clear()
    return payloads


def _unmask_large(masked: bytes, mask: bytes) -> bytes:
    """Return a payload unmasked, in four steps, each for every fourth byte."""
    plain = bytearray(len(masked))
    for offset in range(4):
        plain[offset::4] = masked[offset::4].translate(_XOR[mask[offset]])
    return bytes(plain)
