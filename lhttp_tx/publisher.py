"""
Publishing from another process: one HTTP POST.

For scripts, cron jobs and web applications; uses nothing but the standard library and blocks until it is answered.
Code in the server's own process uses :func:`lhttp_tx.publish`.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterable

from lhttp_tx.channels import check_channel
from lhttp_tx.errors import LHTTPError
from lhttp_tx.message import HeaderPairs, Message

__all__ = ["PublishFailed", "post_message"]

_MAX_REASON_SIZE = 1_024


class PublishFailed(LHTTPError):
    """The server did not take the message; ``status`` is the HTTP status, 503 if it was not reached."""


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
) -> None:
    """
    Publish through the server at *url*.

    :param url: its publishing address, such as ``http://127.0.0.1:8081/publish``.
    :param channels: a channel name, or several.
    :param command: the command of the message.
    :param headers: pairs of name and value, or a dict of them.
    :param body: the body; a str is sent as UTF-8.
    :param binary: whether subscribers get a binary WebSocket message.
    :param token: the server's secret, if the operator has set one.
    :param timeout: seconds that connecting and each read may take.
    :raises PublishFailed: if the server refuses it or cannot be reached.
    :raises LocalProtocolError: if the message is not well-formed.
    :raises RemoteProtocolError: if a channel name is malformed or reserved.
    :raises ValueError: if *url* is no http or https URL.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no http or https URL")
    names = [check_channel(name) for name in ([channels] if isinstance(channels, str) else channels)]
    pairs = headers.items() if isinstance(headers, dict) else headers
    message = Message(command, [("publish", " ".join(names)), *pairs], body, binary=binary)
    kind = "application/octet-stream" if binary else "text/plain; charset=utf-8"
    request = urllib.request.Request(url, data=message.raw, headers={"Content-Type": kind}, method="POST")  # noqa: S310
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            response.read(_MAX_REASON_SIZE)
    except urllib.error.HTTPError as error:
        with error:
            reason = error.read(_MAX_REASON_SIZE).decode("utf-8", "replace").strip()
        raise PublishFailed(reason or str(error), status=error.code) from None
    except OSError as error:
        raise PublishFailed(f"cannot reach {url}: {error}", status=503) from error
