"""
The filter behind the ``multipart`` header.

Source: the protocol document, section "Multipart".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lhttp_tx.codec.multipart import MAX_PART_HEADERS, MAX_PARTS, check_split, parse_offsets, split_parts
from lhttp_tx.errors import MessageTooLarge
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.interfaces import MaybeAwaitable

if TYPE_CHECKING:
    from lhttp_tx.codec.message import Head
    from lhttp_tx.engine.request import Request

__all__ = ["MultipartFilter"]


class MultipartFilter(HeaderFilter):
    """Splits the body into :attr:`lhttp_tx.engine.request.Request.parts`."""

    headers = ("multipart",)

    def check(self, head: Head) -> None:
        """
        :raises RemoteProtocolError: if the offsets are malformed.
        :raises MessageTooLarge: if there are too many offsets.
        """
        count = len(parse_offsets(head.headers.get("multipart", "")))
        if count > MAX_PARTS:
            raise MessageTooLarge(f"message of {count} parts has more than {MAX_PARTS}")

    def before(self, request: Request) -> MaybeAwaitable:
        """
        :raises RemoteProtocolError: if an offset is outside the body, or a part is malformed.
        :raises MessageTooLarge: if the parts have too many headers.
        """
        offsets = parse_offsets(request.headers.get("multipart", ""))
        check_split(offsets, request.body, MAX_PART_HEADERS)
        request.parts = partial(split_parts, offsets, request.body)  # most processors do not ask for them
        return None
