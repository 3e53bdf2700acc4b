"""
The bounds of one message and of one connection.

Used by the codec and the engine; imports nothing of the project.
"""

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "UNLIMITED", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one message or one connection may cost. Sizes are bytes, times are seconds.

    :ivar message_size: the largest LHTTP message taken; larger ones get status 413. A WebSocket message of more than
        twice this size closes the connection with 1009, before it is buffered.
    :ivar head_size: the largest head (start line and header lines); larger ones get status 413.
    :ivar header_count: the most header lines of one message.
    :ivar queue_length: messages of one connection that may wait while one is in hand; a full queue pauses reading until
        half of them are handled.
    :ivar subscription_count: channels that one connection may be subscribed to; more get status 429.
    :ivar unsent_size: bytes that may wait for one slow reader; more close its connection with 1013.
    :ivar message_rate: messages a second that a client may send; then reading from it pauses. 0: no limit.
    :ivar message_burst: messages that it may send at once before that; 0: as many as in one second.
    :ivar byte_rate: bytes a second that a client may send, likewise; it may send 64 KiB at once in any case.
    :ivar error_count: messages in a row that may be answered with an error that is the client's fault (400 to 499);
        then its connection is closed with 1008. 0: no limit.
    :ivar processor_timeout: how long a processor or filter may take for one message, then it is cancelled (status 500).
    """

    message_size: int = 65_536
    head_size: int = 8_192
    header_count: int = 64
    queue_length: int = 64
    subscription_count: int = 128
    unsent_size: int = 1_048_576
    processor_timeout: float = 30.0
    message_rate: float = 0.0
    message_burst: int = 0
    byte_rate: int = 0
    error_count: int = 100


DEFAULT_LIMITS = Limits()

UNLIMITED = Limits(message_size=2**62, head_size=2**62, header_count=2**31)
"""For messages that were in bounds already, where they came in."""
