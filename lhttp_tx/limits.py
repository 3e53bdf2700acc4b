"""
The bounds of one message and of one connection.

Used by the codec and the engine; imports nothing of the project.
"""

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one message or one connection may cost. Sizes are bytes, times are seconds.

    :ivar message_size: the largest LHTTP message taken; larger ones get status 413. A WebSocket message of more than
        twice this size closes the connection with 1009, before it is buffered.
    :ivar head_size: the largest head (start line and header lines); larger ones get status 413.
    :ivar header_count: the most header lines of one message.
    :ivar queue_length: messages of one connection that may wait while one is in hand; a full queue pauses reading.
    :ivar subscription_count: channels that one connection may be subscribed to; more get status 429.
    :ivar unsent_size: bytes that may wait for one slow reader; more close its connection with 1013.
    :ivar processor_timeout: how long a processor or filter may take for one message, then it is cancelled (status 500).
    """

    message_size: int = 65_536
    head_size: int = 8_192
    header_count: int = 64
    queue_length: int = 64
    subscription_count: int = 128
    unsent_size: int = 1_048_576
    processor_timeout: float = 30.0


DEFAULT_LIMITS = Limits()
