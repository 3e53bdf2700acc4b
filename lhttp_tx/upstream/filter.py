"""
The filter behind the ``upstream`` header.

Source: the protocol document, section "Upstream".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lhttp_tx.filters import HeaderFilter
from lhttp_tx.interfaces import MaybeAwaitable
from lhttp_tx.upstream.forwarding import http_headers
from lhttp_tx.upstream.targets import TargetPolicy, parse_upstream

if TYPE_CHECKING:
    from lhttp_tx.codec.message import Head
    from lhttp_tx.engine.request import Request
    from lhttp_tx.upstream.client import UpstreamClient, UpstreamResponse

__all__ = ["UpstreamFilter"]


class UpstreamFilter(HeaderFilter):
    """
    Sends the whole message to the backend that the header names.

    A backend that was written for the original LHTTP server gets only the body, with the message's headers as headers
    of the request.

    The connection's next message waits for the answer. So a backend gets the messages of one client in order, and one
    at a time. The wait is limited by the time limit of :class:`~lhttp_tx.upstream.client.UpstreamClient`.
    """

    headers = ("upstream",)

    def __init__(self, client: UpstreamClient, policy: TargetPolicy) -> None:
        """
        :param client: makes the requests.
        :param policy: the allowed targets.
        """
        self._client = client
        self._policy = policy
        self.timeout = client.timeout + 1.0

    def check(self, head: Head) -> None:
        """
        :raises RemoteProtocolError: if the header is malformed.
        :raises UpstreamForbidden: if its target is not allowed.
        """
        _, target = parse_upstream(head.headers.get("upstream", ""))
        self._policy.check(target)

    def after(self, request: Request) -> MaybeAwaitable:
        """
        :raises UpstreamForbidden: if code has changed the message's target to one that is not allowed.
        :raises UpstreamBusy: if too many requests are under way.
        :raises UpstreamDown: if the backend failed several times in a row.
        """
        method, target = parse_upstream(request.headers.get("upstream", ""))
        self._policy.check(target)
        message = request.message
        with_receipt = request.receipt is not None
        headers: list[tuple[str, str]] = []
        body = message.raw
        if self._policy.is_original(target):
            headers, body = http_headers(message.headers), message.body
        answer = self._client.request(
            method, target, body, binary=message.binary, want_body=with_receipt, headers=headers
        )
        return answer.addCallback(_add_to_receipt, request)


def _add_to_receipt(response: UpstreamResponse, request: Request) -> None:
    request.receipt_headers = (*request.receipt_headers, ("upstream-status", str(response.status)))
    request.receipt_body = response.body
    try:
        response.body.decode("utf-8")
    except UnicodeDecodeError:
        request.receipt_binary = True
