"""
Publishes a message from another process, with one HTTP POST.

It is for scripts, cron jobs and web applications. It uses only the standard library for the network, and blocks until
the server has answered. Code in the server's own process uses :func:`lhttp_tx.publish`.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any

from lhttp_tx.client.results import Published, identified
from lhttp_tx.codec.channels import own_channels
from lhttp_tx.codec.headers import HeaderPairs
from lhttp_tx.codec.message import publication
from lhttp_tx.errors import LHTTPError

__all__ = ["PublishFailed", "post_message"]

_MAX_REASON_SIZE = 1_024

_MAX_ANSWER_SIZE = 65_536
"""The most bytes of an answer that are read. From a longer answer, no positions are returned."""

_PAUSE = 0.5
"""Seconds before the second attempt. Each further pause is twice as long as the one before."""

_LATER = (502, 503, 504)
"""The statuses after which another attempt may succeed."""


class PublishFailed(LHTTPError):
    """The server has not accepted the message. ``status`` is the HTTP status, or 503 if the server was not reached."""


def post_message(
    url: str,
    channels: str | Iterable[str],
    command: str,
    headers: HeaderPairs | dict[str, str] = (),
    body: bytes | str = b"",
    *,
    binary: bool = False,
    token: str | None = None,
    timeout: float = 10.0,
    message_id: str | None = None,
    attempts: int = 1,
) -> Published:
    """
    Publish through the server at *url*.

    After an error, you can safely send a message with an id again: a server that already has it does not publish it
    again. The function sends the id in the header ``Idempotency-Key``, and subscribers see it as ``message-id``.

    :param url: the server's publishing address, such as ``http://127.0.0.1:8081/publish``.
    :param channels: a channel name, or several.
    :param command: the command of the message.
    :param headers: pairs of name and value, or a dict.
    :param body: the body; a str is sent as UTF-8.
    :param binary: whether subscribers get a binary WebSocket message.
    :param token: the server's token for publishing, if the operator has set one.
    :param timeout: the most seconds for connecting, and for each read.
    :param message_id: 1 to 64 visible ASCII characters, unique for this publication. By default, the message gets a
        random id if *attempts* is more than 1, and else none.
    :param attempts: the most attempts, at least 1. The function tries again if the server cannot be reached, does not
        answer, or answers with 502, 503 or 504. It waits half a second before the second attempt, and twice as long
        before each further one. By default, the server remembers an id for two minutes.
    :returns: the result.
    :raises PublishFailed: if the server refuses the message or cannot be reached.
    :raises LocalProtocolError: if the message or the id is malformed, or a channel name is malformed or reserved.
    :raises ValueError: if *url* is not an ``http://`` or ``https://`` URL, or *attempts* is less than 1.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no http or https URL")
    if attempts < 1:
        raise ValueError(f"{attempts} attempts are none")
    if message_id is not None or attempts > 1:
        headers, message_id = identified(headers, message_id)
        headers = [(name, value) for name, value in headers if name.lower() != "message-id"]
    message = publication(own_channels(channels), command, headers, body, binary=binary)
    kind = "application/octet-stream" if binary else "text/plain; charset=utf-8"
    request = urllib.request.Request(url, data=message.raw, headers={"Content-Type": kind}, method="POST")  # noqa: S310
    if message_id is not None:
        request.add_header("Idempotency-Key", message_id)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    for attempt in range(attempts):
        try:
            return _published(_post(request, url, timeout), message_id)
        except PublishFailed as error:
            if error.status not in _LATER or attempt == attempts - 1:
                raise
            time.sleep(_PAUSE * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _post(request: urllib.request.Request, url: str, timeout: float) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            answer: bytes = response.read(_MAX_ANSWER_SIZE)
            return answer
    except urllib.error.HTTPError as error:
        with error:
            reason = error.read(_MAX_REASON_SIZE).decode("utf-8", "replace").strip()
        raise PublishFailed(reason or str(error), status=error.code) from None
    except OSError as error:
        raise PublishFailed(f"cannot reach {url}: {error}", status=503) from error


def _published(answer: bytes, message_id: str | None) -> Published:
    """Return the result in an answer. Without a history, there are no positions."""
    try:
        told: Any = json.loads(answer)
    except ValueError:
        told = None
    positions = told.get("positions") if isinstance(told, dict) else None
    if not isinstance(positions, dict):
        positions = {}
    return Published(message_id, positions, isinstance(told, dict) and told.get("duplicate") is True)
