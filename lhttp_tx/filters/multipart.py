"""
The filter behind the ``multipart`` header.

Source: the protocol document, section "Multipart: offsets instead of boundaries".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lhttp_tx.filters import HeaderFilter
from lhttp_tx.interfaces import MaybeAwaitable
from lhttp_tx.multipart import parse_offsets, split_parts

if TYPE_CHECKING:
    from lhttp_tx.message import Head
    from lhttp_tx.request import Request

__all__ = ["MultipartFilter"]


class MultipartFilter(HeaderFilter):
    """Splits the body into :attr:`lhttp_tx.request.Request.parts`."""

    headers = ("multipart",)

    def check(self, head: Head) -> None:
        """:raises RemoteProtocolError: if the offsets are malformed."""
        parse_offsets(head.headers.get("multipart", ""))

    def before(self, request: Request) -> MaybeAwaitable:
        """:raises RemoteProtocolError: if an offset is not inside the body, or a part is malformed."""
        request.parts = split_parts(parse_offsets(request.headers.get("multipart", "")), request.body)
        return None
