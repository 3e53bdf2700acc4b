"""
The filter behind the ``upstream`` header.

Source: the protocol document, section "Upstream: the server as a proxy".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lhttp_tx.filters import HeaderFilter
from lhttp_tx.interfaces import MaybeAwaitable
from lhttp_tx.targets import TargetPolicy, parse_upstream

if TYPE_CHECKING:
    from lhttp_tx.message import Head
    from lhttp_tx.request import Request
    from lhttp_tx.upstream import UpstreamClient, UpstreamResponse

__all__ = ["UpstreamFilter"]


class UpstreamFilter(HeaderFilter):
    """
    Sends the whole message to the backend that the header names.

    The connection's next message waits for the answer, so a backend gets the messages of one client in order and one
    at a time; it never waits longer than the client's own time limit.
    """

    headers = ("upstream",)

    def __init__(self, client: UpstreamClient, policy: TargetPolicy) -> None:
        """
        :param client: makes the requests.
        :param policy: the targets that are allowed.
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
        :raises UpstreamBusy: if too many requests are under way.
        :raises UpstreamDown: if the backend failed several times in a row.
        """
        method, target = parse_upstream(request.headers.get("upstream", ""))
        message = request.message
        with_receipt = request.receipt is not None
        answer = self._client.request(method, target, message.raw, binary=message.binary, want_body=with_receipt)
        return answer.addCallback(_add_to_receipt, request)


def _add_to_receipt(response: UpstreamResponse, request: Request) -> None:
    request.receipt_headers = (*request.receipt_headers, ("upstream-status", str(response.status)))
    request.receipt_body = response.body
    try:
        response.body.decode("utf-8")
    except UnicodeDecodeError:
        request.receipt_binary = True
