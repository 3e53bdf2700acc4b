"""
The fast lane: whole data frames taken out of what one read brought in, in one pass.

Part of the codec: pure functions, used by :mod:`lhttp_tx.protocol`. It takes only what is beyond doubt: final, masked
text and binary frames without extension bits, in the shortest encoding of their length, whole, and valid UTF-8 where
they are text (RFC 6455, section 5.2). It stops before anything else, which is then left to Autobahn's state machine:
the judge of what is legal stays the same with and without the lane.
"""

__all__ = ["take_messages"]

_TEXT = 0x81
_BINARY = 0x82


def take_messages(data: bytes, max_size: int) -> tuple[list[tuple[bytes, bool, int]], bool]:
    """
    Return the messages that *data* begins with.

    :param data: what was read, beginning with a frame, outside a fragmented message.
    :param max_size: bytes of a payload; a larger one is left to the judge.
    :returns: for each message its payload, whether it is binary, and where in *data* the next frame begins; and
        whether what follows them could be taken too if only more of it were there.
    """
    messages: list[tuple[bytes, bool, int]] = []
    position, end = 0, len(data)
    while end - position >= 6:
        first, second = data[position], data[position + 1]
        if (first != _TEXT and first != _BINARY) or second < 0x80:
            return messages, False
        size = second & 0x7F
        start = position + 6
        if size > 125:
            if size == 127:
                return messages, False
            if end - position < 8:
                return messages, True
            size = data[position + 2] << 8 | data[position + 3]
            if size < 126:
                return messages, False
            start = position + 8
        stop = start + size
        if size > max_size:
            return messages, False
        if stop > end:
            return messages, True
        key = int.from_bytes((data[start - 4 : start] * (size + 3 >> 2))[:size], "little")
        payload = (int.from_bytes(data[start:stop], "little") ^ key).to_bytes(size, "little")
        if first == _TEXT and not payload.isascii():
            try:
                payload.decode("utf-8")
            except UnicodeDecodeError:
                return messages, False
        messages.append((payload, first == _BINARY, stop))
        position = stop
    return messages, position < end and data[position] in (_TEXT, _BINARY)
