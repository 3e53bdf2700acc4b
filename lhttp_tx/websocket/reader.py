"""
The fast lane: whole data frames taken out of what one read brought in, in one pass.

Part of the codec: pure functions, used by :mod:`lhttp_tx.protocol`. It takes only what is beyond doubt: final, masked
text and binary frames without extension bits, in the shortest encoding of their length, whole, and valid UTF-8 where
they are text (RFC 6455, section 5.2). It stops before anything else, which is then left to Autobahn's state machine:
the judge of what is legal stays the same with and without the lane.

Small frames are unmasked many at a time: their keys are strung together, and one operation on one large number does
them all. Where a program sends a burst, most of its frames are of one size; then their heads are looked at, and their
keys strung together, all at once too. Large frames are unmasked by translation tables, which cost more to begin with
and less for each byte.
"""

from struct import Struct

__all__ = ["frames_size", "take_messages"]

_TEXT = 0x81
_BINARY = 0x82

_LARGE = 1_000
"""Bytes of a payload from which on translation tables are faster."""

_BATCH_SIZE = 16_384
"""Bytes after which small frames are unmasked though more follow, so that numbers stay in the processor's cache."""

_ALIKE_COUNT = 32
"""Small frames of one size, one after another, from which on it pays to take them at once."""

_XOR = [bytes(byte ^ mask for byte in range(256)) for mask in range(256)]
"""For each byte of a mask the table that unmasks with it."""


def take_messages(data: bytes, position: int, max_size: int) -> tuple[list[bytes], bool, int, bool]:
    """
    Return the messages of one kind, text or binary, that follow each other in *data*.

    :param data: what was read.
    :param position: where in *data* the first frame begins, outside a fragmented message.
    :param max_size: bytes of a payload; a larger one is left to the judge.
    :returns: the payloads; whether they are binary; where in *data* the next frame begins; and whether what follows
        could be taken too, be it by another call, be it if only more of it were there.
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
            # The key runs from the frame's first byte to its last; what it does to the header does not matter.
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
        # What is not masked is illegal, and the judge is to see it now.
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
    """Return how many bytes the frames had that :func:`take_messages` took *payloads* out of."""
    return sum(len(payload) + (6 if len(payload) < 126 else 8) for payload in payloads)


def _take_only(data: bytes, position: int, start: int, max_size: int) -> tuple[list[bytes], bool, int, bool]:
    """Return the same as :func:`take_messages` where one frame is all there is, as in a chat."""
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
    Return the payloads of the small frames from *position* on that are of *kind* and of one size, and where they end.

    Where a frame begins as the one before it did, the next one begins as many bytes further on: so every such byte of
    *data* is looked at in one step, and none is looked at that is not the beginning of a frame.
    """
    if len(data) - position < _ALIKE_COUNT * 6 or not 0x80 <= data[position + 1] < 0xFE:
        return [], position
    size = data[position + 1] - 0x80
    if data[position] != kind or kind not in (_TEXT, _BINARY) or size > max_size:
        return [], position
    step = size + 6
    wanted, most = _ALIKE_COUNT, (len(data) - position) // step
    while True:  # further on only if all up to here are alike, so that nothing is looked at for each that is not
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
    """Return how many of *values* are the same as the first one and follow it."""
    return len(values) - len(values.lstrip(values[:1]))


def _unmask_batch(masked: bytes, keys: list[bytes], starts: list[int], stops: list[int], begin: int) -> list[bytes]:
    """Return the payloads from *starts* to *stops*, less *begin*, and empty the lists."""
    number = int.from_bytes(masked, "little") ^ int.from_bytes(b"".join(keys), "little")
    plain = number.to_bytes(len(masked), "little")
    payloads = [plain[start - begin : stop - begin] for start, stop in zip(starts, stops, strict=True)]
    keys.clear()
    starts.clear()
    stops.clear()
    return payloads


def _unmask_large(masked: bytes, mask: bytes) -> bytes:
    """Return a payload unmasked, each fourth byte at a time."""
    plain = bytearray(len(masked))
    for offset in range(4):
        plain[offset::4] = masked[offset::4].translate(_XOR[mask[offset]])
    return bytes(plain)
