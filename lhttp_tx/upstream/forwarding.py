"""
Turns a message's headers into headers of an HTTP request, for backends that were written for the original LHTTP server.

Used by :mod:`lhttp_tx.upstream.filter`. Pure functions, no I/O. A client chooses names and values. So this leaves out
every header about the request's framing, target or sender.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["http_headers"]

_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")
"""A name (RFC 9110, section 5.1) without an underscore, which CGI and WSGI do not distinguish from a hyphen."""

_OURS = frozenset(
    (
        *("upstream", "receipt"),  # for this server alone
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *("http2-settings", "content-length", "expect", "host"),  # for one connection, and its framing
        *("accept-encoding",),  # the client inflates nothing
        *("forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-remote-addr", "x-originating-ip"),
        *("true-client-ip", "client-ip", "cf-connecting-ip", "fastly-client-ip", "remote-user", "x-remote-user"),
        *("x-original-url", "x-rewrite-url", "x-original-host", "x-original-uri", "x-host", "x-http-host-override"),
        *("x-http-method-override", "x-http-method", "x-method-override"),
    )
)
"""Headers that are left out, because a client must not choose them."""

_OUR_BEGINNINGS = ("proxy", "sec-", "x-forwarded", "x-envoy-", "x-amzn-")
"""The beginnings of more names that are left out."""


def http_headers(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """
    Return the headers of the HTTP request for a message.

    If a header is repeated, the last one counts, as in the message. But the lists ``publish``, ``subscribe`` and
    ``unsubscribe`` are joined.

    :param pairs: the headers of a message, whose values hold no control characters.
    :returns: pairs of name and value. Names that are not valid in HTTP are left out.
    """
    found: dict[str, tuple[str, str]] = {}
    for name, value in pairs:
        key = name.lower()
        if key in _OURS or key.startswith(_OUR_BEGINNINGS) or not _NAME.fullmatch(name):
            continue
        before = found.get(key)
        joined = before is not None and key in ("publish", "subscribe", "unsubscribe")
        found[key] = (name, f"{before[1]} {value}".strip() if joined and before is not None else value)
    return list(found.values())
