"""
The options for backends that get messages.

A part of :mod:`lhttp_tx.twistd.options`.
"""

from __future__ import annotations

from lhttp_tx.codec.bounds import COUNT, COUNT_OR_NONE, SECONDS, SIZE
from lhttp_tx.twistd.topics.topic import Topic, usage_errors
from lhttp_tx.upstream.targets import TargetPolicy

__all__ = ["UpstreamOptions"]


class UpstreamOptions(Topic):
    """The options ``--upstream-...``."""

    optFlags = [["upstream-public-only", None, "Refuse backends at private and loopback addresses."]]

    optParameters = [
        ["upstream-timeout", None, 10.0, "Time limit for the response of a backend, in seconds", SECONDS],
        ["upstream-max-response", None, 65_536, "Maximum bytes of the response of a backend", SIZE],
        ["upstream-max-in-flight", None, 100, "Maximum number of requests to backends at the same time", COUNT],
        [
            "upstream-max-failures",
            None,
            5,
            "Failures in a row before the server stops calling a backend for a while, 0 for never",
            COUNT_OR_NONE,
        ],
        ["upstream-cool-down", None, 10.0, "Seconds for which the server does not call a failed backend", SECONDS],
    ]

    def __init__(self) -> None:
        super().__init__()
        self._upstream: list[str] = []
        self._upstream_original: list[str] = []

    def opt_upstream_allow(self, url: str) -> None:
        """URL of a backend that clients may use, including all paths below it: http://backend.example:8000/record
        (repeatable)
        """
        self._upstream.append(_target("--upstream-allow", url))

    def opt_upstream_original(self, url: str) -> None:
        """Like --upstream-allow, for a backend of the original LHTTP server, which expects HTTP headers (repeatable)"""
        self._upstream_original.append(_target("--upstream-original", url))

    def check_upstream(self) -> None:
        """:raises UsageError: if a backend is listed as both kinds."""
        with usage_errors("--upstream-original:"):
            TargetPolicy(self._upstream, original=self._upstream_original)


def _target(option: str, url: str) -> str:
    with usage_errors(f"{option}:"):
        TargetPolicy([url])
    return url
