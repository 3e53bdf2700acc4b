"""
The options for traces.

A part of :mod:`lhttp_tx.twistd.options`. :mod:`lhttp_tx.observe.tracing` does what they ask for.
"""

from __future__ import annotations

from typing import Any

from twisted.python import usage

from lhttp_tx.codec.bounds import COUNT, RATIO
from lhttp_tx.observe.extras import install_command
from lhttp_tx.observe.tracing.provider import check_collector, check_headers, is_installed
from lhttp_tx.twistd.topics.topic import Topic, read_secret, usage_errors

__all__ = ["TracingOptions"]

_NEED = ("trace-ratio", "trace-headers-file")


class TracingOptions(Topic):
    """The options ``--trace`` and ``--trace-...``."""

    optParameters = [
        ["trace", None, None, "URL of a collector for traces (OpenTelemetry, OTLP over HTTP): http://127.0.0.1:4318"],
        ["trace-ratio", None, 0.0, "Share of the messages without traceparent that are traced, from 0 to 1", RATIO],
        ["trace-rate", None, 100, "Maximum number of messages that are traced, per second", COUNT],
        ["trace-headers-file", None, None, "File with headers for the collector, one a line: NAME: VALUE"],
    ]

    def trace_settings(self) -> dict[str, Any]:
        """
        Return the settings of these options, by their names in :class:`~lhttp_tx.config.Config`.

        :raises UsageError: if an option is malformed, or contradicts another one.
        """
        url = self["trace"]
        if url is None:
            for name in _NEED:
                if self[name]:
                    raise usage.UsageError(f"--{name} needs a collector: add --trace URL")
            return {}
        with usage_errors("--trace:"):
            check_collector(url)
        if not is_installed():
            raise usage.UsageError(f"--trace needs OpenTelemetry: {install_command('otel')}")
        return {
            "trace": url,
            "trace_ratio": self["trace-ratio"],
            "trace_rate": self["trace-rate"],
            "trace_headers": self.trace_headers(),
        }

    def trace_headers(self) -> dict[str, str]:
        """
        Return the headers in the file of ``--trace-headers-file``; none without this option.

        :raises UsageError: if the file cannot be read, or is malformed.
        """
        path = self["trace-headers-file"]
        headers: dict[str, str] = {}
        for number, line in enumerate(
            (read_secret("--trace-headers-file", path, wait=self.wait) or "").splitlines(), start=1
        ):
            name, colon, value = line.partition(":")
            if line.strip() and not colon:
                raise usage.UsageError(f"--trace-headers-file: line {number} of {path} has no colon; write NAME: VALUE")
            if colon:
                headers[name.strip()] = value.strip()
        with usage_errors(f"--trace-headers-file: {path}:"):
            check_headers(headers)
        return headers
