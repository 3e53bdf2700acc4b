"""
The limits of one message and of one connection.

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

    Each limit has the same bounds as the command-line option with the same meaning. A value out of bounds raises
    :exc:`ValueError`. A value of a wrong type raises :exc:`TypeError`.

    :ivar message_size: the most bytes of an LHTTP message. A larger one gets status 413. A WebSocket message of more
        than twice this size closes the connection with 1009 before it is buffered.
    :ivar head_size: the most bytes of a head (start line and header lines). A larger one gets status 413.
    :ivar header_count: the most header lines of one message. More get status 413.
    :ivar queue_length: the most messages of one connection that wait while one is being handled. If the queue is full,
        reading pauses until half of them are handled. The queue is also full if it has 16 times *message_size* bytes.
    :ivar subscription_count: the most subscriptions of one connection. More get status 429.
    :ivar unsent_size: the most bytes that wait to be sent to one slow client. Beyond that, its connection is closed
        with 1013.
    :ivar message_rate: the most messages per second of a client. Beyond that, reading from it pauses. 0: no limit.
    :ivar message_burst: the most messages that a client may send at once before reading pauses. 0: as many as in one
        second. It requires *message_rate*.
    :ivar byte_rate: the most bytes per second of a client. Beyond that, reading from it pauses. A client may always
        send 64 KiB at once. Compressed data also counts with its inflated size. 0: no limit.
    :ivar error_count: the number of consecutive messages with errors from 400 to 499 after which the connection is
        closed with 1008. 0: no limit.
    :ivar processor_timeout: the most seconds that a processor or filter may take for one message. After that, it is
        cancelled, and the client gets status 500.
    :ivar list_length: the most channels in a ``publish``, ``subscribe`` or ``unsubscribe`` header. More get status 429.
        0: *subscription_count*, but at most 32 in ``publish``.
    :ivar token_count: the most tokens of a channel name in a client's list. More get status 400.
    :ivar wildcard_tokens: the most tokens of a wildcard subscription. More get status 400.
    :ivar wildcard_count: the most tokens ``*`` of a wildcard subscription. More get status 400. These two limits bound
        the work to find the wildcard subscriptions that match a channel (:class:`lhttp_tx.codec.wildcards.Wildcards`).
    :ivar subscription_rate: the most channels per second to which a connection may subscribe if the bus has to
        subscribe, too. In a cluster, this is so if nobody on the node is subscribed yet. More get status 429. After a
        pause, the connection may subscribe to *subscription_count* such channels at once. 0: no limit.
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
        """The most channels in a ``subscribe`` or ``unsubscribe`` header."""
        return self.list_length or self.subscription_count

    @property
    def published(self) -> int:
        """The most channels in a ``publish`` header. Each of them causes a publication."""
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
"""The most channels in a ``publish`` header, unless ``list_length`` is set."""

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
"""For messages that were already checked when they arrived, and for the server's own."""
