"""
The options for sizes, counts and time limits.

A part of :mod:`lhttp_tx.twistd.options`.
"""

from __future__ import annotations

from twisted.python import usage

from lhttp_tx.codec.bounds import BYTE_RATE, COUNT, COUNT_OR_NONE, PING_INTERVAL, RATE, SECONDS, SECONDS_OR_NONE, SIZE
from lhttp_tx.codec.limits import Limits
from lhttp_tx.twistd.topics.topic import Topic

__all__ = ["LimitOptions"]


class LimitOptions(Topic):
    """``--max-message-size`` and similar options, and the time limits of a connection."""

    optParameters = [
        ["max-message-size", None, 65_536, "Maximum bytes of a message", SIZE],
        ["max-head-size", None, 8_192, "Maximum bytes of a message's start line and headers", SIZE],
        ["max-headers", None, 64, "Maximum number of headers of a message", COUNT],
        ["max-connections", None, 10_000, "Maximum number of WebSocket connections, 0 for no limit", COUNT_OR_NONE],
        [
            "max-per-address",
            None,
            200,
            "Maximum number of WebSocket connections of one address, 0 for no limit",
            COUNT_OR_NONE,
        ],
        [
            "max-pending",
            None,
            2_000,
            "Maximum number of connections without a WebSocket, 0 for no limit",
            COUNT_OR_NONE,
        ],
        ["max-rate", None, 0.0, "Messages a second that the server reads from a connection, 0 for no limit", RATE],
        [
            "max-burst",
            None,
            0,
            "Messages that a connection may send at once with --max-rate, 0 for those of one second",
            COUNT_OR_NONE,
        ],
        ["max-byte-rate", None, 0, "Bytes a second that the server reads from a connection, 0 for no limit", BYTE_RATE],
        ["max-errors", None, 100, "Errors in a row before the server closes a connection, 0 for never", COUNT_OR_NONE],
        ["max-subscriptions", None, 128, "Maximum number of subscriptions of a connection", COUNT],
        [
            "max-list",
            None,
            0,
            "Maximum number of channels in one header of a message, 0 for --max-subscriptions (publish: 32)",
            COUNT_OR_NONE,
        ],
        [
            "max-subscribe-rate",
            None,
            5.0,
            "In a cluster: subscriptions a second of a connection to channels new to its node, 0 for no limit",
            RATE,
        ],
        ["max-tokens", None, 16, "Maximum number of tokens of a channel name (a.b has two)", COUNT],
        ["max-wildcard-tokens", None, 8, "Maximum number of tokens of a wildcard subscription", COUNT],
        ["max-wildcards", None, 2, "Maximum number of * tokens of a wildcard subscription", COUNT_OR_NONE],
        [
            "max-queue",
            None,
            64,
            "Messages of a connection that may wait before the server stops reading from it",
            COUNT,
        ],
        ["max-unsent", None, 1_048_576, "Bytes that may wait for a slow client before the server closes it", SIZE],
        ["processor-timeout", None, 30.0, "Time limit of a processor for one message, in seconds", SECONDS],
        ["ping-interval", None, 30.0, "Seconds between pings, 0 for no pings", PING_INTERVAL],
        ["ping-timeout", None, 10.0, "Time limit for the answer to a ping, in seconds", SECONDS],
        ["handshake-timeout", None, 5.0, "Time limit for the WebSocket handshake, in seconds", SECONDS],
        ["body-timeout", None, 20.0, "Time limit for the body of an HTTP request, in seconds", SECONDS],
        ["http-lifetime", None, 120.0, "Maximum age of a connection without a WebSocket, in seconds", SECONDS],
        ["close-timeout", None, 1.5, "Time limit for a client to answer a close, in seconds", SECONDS],
        ["drain-timeout", None, 3.0, "Time limit to finish the current messages on SIGTERM, in seconds", SECONDS],
        [
            "drain-delay",
            None,
            0.0,
            "Seconds that the server continues after SIGTERM, while /ready answers with 503",
            SECONDS_OR_NONE,
        ],
        ["drain-time", None, 0.0, "Seconds over which SIGTERM closes connections, 0 for all at once", SECONDS_OR_NONE],
    ]

    def check_limits(self) -> None:
        """:raises UsageError: if limits contradict each other."""
        if self["max-head-size"] > self["max-message-size"]:
            raise usage.UsageError("--max-head-size is larger than --max-message-size; lower it, or raise the other")
        if self["max-burst"] and not self["max-rate"]:
            raise usage.UsageError("--max-burst has no effect without --max-rate: set --max-rate, too")

    def limits(self) -> Limits:
        """Return the limits of one connection."""
        return Limits(
            message_size=self["max-message-size"],
            head_size=self["max-head-size"],
            header_count=self["max-headers"],
            queue_length=self["max-queue"],
            subscription_count=self["max-subscriptions"],
            unsent_size=self["max-unsent"],
            message_rate=self["max-rate"],
            message_burst=self["max-burst"],
            byte_rate=self["max-byte-rate"],
            error_count=self["max-errors"],
            processor_timeout=self["processor-timeout"],
            list_length=self["max-list"],
            token_count=self["max-tokens"],
            wildcard_tokens=self["max-wildcard-tokens"],
            wildcard_count=self["max-wildcards"],
            subscription_rate=self["max-subscribe-rate"],
        )
