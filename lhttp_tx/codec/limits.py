"""
The bounds of one message and of one connection.

Used by the codec and the engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lhttp_tx.codec.bounds import BYTE_RATE, COUNT, COUNT_OR_NONE, RATE, SECONDS, SIZE, Bound, check_fields

__all__ = ["DEFAULT_LIMITS", "UNLIMITED", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """
    The limits of one message or one connection. Sizes are bytes, times are seconds.

    Each limit has the bounds of the command-line option with the same meaning. A value out of bounds raises
    :exc:`ValueError`, and a value of a wrong type raises :exc:`TypeError`.

    :ivar message_size: the largest accepted LHTTP message; larger ones get status 413. A WebSocket message of more than
        twice this size closes the connection with 1009, before it is buffered.
    :ivar head_size: the largest head (start line and header lines); larger ones get status 413.
    :ivar header_count: the most header lines of one message.
    :ivar queue_length: messages of one connection that may wait while one is being handled. A full queue pauses reading
        until half of them are handled. A queue is also full with as many bytes as 16 messages of *message_size*.
    :ivar subscription_count: channels that one connection may be subscribed to; more get status 429.
    :ivar unsent_size: bytes that may wait for one slow reader. With more, its connection is closed with 1013.
    :ivar message_rate: messages a second that a client may send. Beyond that, reading from it pauses. 0: no limit.
    :ivar message_burst: messages that a client may send at once before reading pauses; 0: as many as in one second.
    :ivar byte_rate: bytes a second that a client may send, likewise. A client may send 64 KiB at once in any case.
        Compressed data counts with its inflated size, too.
    :ivar error_count: consecutive messages that may get an error that is the client's fault (400 to 499). After that,
        the connection is closed with 1008. 0: no limit.
    :ivar processor_timeout: how long a processor or filter may take for one message. After that, it is cancelled
        (status 500).
    :ivar list_length: channels that one message may list under ``publish``, ``subscribe`` or ``unsubscribe``; more get
        status 429. 0: as many as *subscription_count*, but at most 32 under ``publish``.
    :ivar token_count: tokens of a channel's name in a client's list; more get status 400.
    :ivar wildcard_tokens: tokens that a wildcard subscription may have; more get status 400.
    :ivar wildcard_count: how many of these tokens may be ``*``; more get status 400. These two limits bound the work of
        finding the wildcard subscriptions that match a channel (:class:`lhttp_tx.codec.wildcards.Wildcards`).
    :ivar subscription_rate: channels a second that a connection may subscribe to if the bus has to subscribe, too. In a
        cluster, this happens if nobody on the node is subscribed yet. More get status 429. After a pause, the
        connection may subscribe to *subscription_count* channels at once. 0: no limit.
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
    list_length: int = 0
    token_count: int = 16
    wildcard_tokens: int = 8
    wildcard_count: int = 2
    subscription_rate: float = 5.0

    @property
    def listed(self) -> int:
        """The most channels that one message may list under ``subscribe`` or ``unsubscribe``."""
        return self.list_length or self.subscription_count

    @property
    def published(self) -> int:
        """The most channels that one message may be published to. Each of them makes another publication."""
        return self.list_length or min(self.subscription_count, PUBLISHED)

    BOUNDS: ClassVar[Mapping[str, Bound]] = {
        "message_size": SIZE,
        "head_size": SIZE,
        "header_count": COUNT,
        "queue_length": COUNT,
        "subscription_count": COUNT,
        "subscription_rate": RATE,
        "list_length": COUNT_OR_NONE,
        "token_count": COUNT,
        "wildcard_tokens": COUNT,
        "wildcard_count": COUNT_OR_NONE,
        "unsent_size": SIZE,
        "processor_timeout": SECONDS,
        "message_rate": RATE,
        "message_burst": COUNT_OR_NONE,
        "byte_rate": BYTE_RATE,
        "error_count": COUNT_OR_NONE,
    }

    def __post_init__(self) -> None:
        check_fields(self, self.BOUNDS)
        if self.message_burst and not self.message_rate:
            raise ValueError("message_burst is for connections with a limit: set message_rate, too")


PUBLISHED = 32
"""The most channels that one message may be published to, unless ``list_length`` says otherwise."""

DEFAULT_LIMITS = Limits()

UNLIMITED = Limits(
    message_size=2**31 - 1,
    head_size=2**31 - 1,
    header_count=1_000_000,
    list_length=1_000_000,
    token_count=1_000_000,
    wildcard_tokens=1_000_000,
    wildcard_count=1_000_000,
)
"""For messages that were already checked when they came in."""
