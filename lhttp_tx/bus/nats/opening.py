"""
Connects to one NATS server.

Used by :mod:`lhttp_tx.bus.nats.bus`. The result is a :class:`~lhttp_tx.bus.nats.link.Link`.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from nats.aio.client import RawCredentials
from twisted.internet.defer import Deferred

from lhttp_tx.bus.nats.guarded import GuardedClient
from lhttp_tx.bus.nats.link import Link, in_deferred
from lhttp_tx.bus.nats.owner import LinkOwner
from lhttp_tx.bus.nats.servers import NATSServers, check_credentials, shown_server
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.guard.files import check_file, read_file

__all__ = ["open_link", "read_credentials", "tls_context"]

_CONNECT_TIMEOUT = 2.0
"""The most seconds for each step of connecting: TCP, TLS, the server's greeting, and its answer to the first line."""


def open_link(url: str, servers: NATSServers, owner: LinkOwner) -> Deferred[Link]:
    """
    Connect to the server at *url*.

    :param url: the server's URL.
    :param servers: the credentials, and the limits.
    :param owner: the owner of the new link, to which the link reports events.
    :returns: a Deferred that

        - succeeds with the link;
        - fails with :exc:`lhttp_tx.errors.BusUnavailable`, whose reason says why, after eight seconds at the latest.
    """
    return in_deferred(_open(url, servers, owner))


async def _open(url: str, servers: NATSServers, owner: LinkOwner) -> Link:
    client = GuardedClient(owner.origins.find)
    link = Link(client, url, servers, owner)
    failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def on_error(error: Exception) -> None:
        if not connecting.done():
            if not failed.done():
                failed.set_result(error)
        else:
            await link.on_error(error)

    options: dict[str, Any] = {}
    try:
        if servers.tls:
            client.insists = True
            options["tls"] = await asyncio.get_running_loop().run_in_executor(None, tls_context, servers)
        if servers.credentials_file is not None:
            options["user_credentials"] = read_credentials(servers.credentials_file)
    except (OSError, ValueError) as unusable:
        raise BusUnavailable(f"{shown_server(url)}: {unusable}") from None
    connecting = asyncio.ensure_future(
        client.connect(
            [url],
            name=servers.name,
            error_cb=on_error,
            closed_cb=link.on_end,
            lame_duck_mode_cb=link.on_lame_duck,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=_CONNECT_TIMEOUT,  # type: ignore[arg-type]
            no_echo=True,
            pending_size=0,
            user=servers.user,
            password=servers.password,
            token=servers.token,
            **options,
        )
    )
    try:
        await asyncio.wait((connecting, failed), timeout=4 * _CONNECT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
            link.server = str(client._server_info.get("server_id", ""))
            return link
        error = failed.result() if failed.done() else connecting.exception() if connecting.done() else None
        raise BusUnavailable(f"{shown_server(url)}: {_why(error)}")
    except BaseException:
        connecting.cancel()
        connecting.add_done_callback(link.connecting_ended)  # in case it ignores the cancellation
        link.give_up()
        raise


def _why(error: BaseException | None) -> str:
    if error is None or isinstance(error, TimeoutError):
        return "no answer"
    return str(error) or repr(error)


def read_credentials(path: str) -> RawCredentials:
    """
    Return the credentials in a file. nats-py could read them itself, but would wait forever for a pipe.

    :raises ValueError: if the file holds no credentials, or is not a regular file.
    :raises OSError: if it cannot be read.
    """
    content = read_file(path)
    try:
        return RawCredentials(check_credentials(content.decode("utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def tls_context(servers: NATSServers) -> ssl.SSLContext:
    """
    Return the TLS context for connections.

    :raises ValueError: if one of the files is not a regular file.
    :raises OSError: if one cannot be read, or OpenSSL cannot use it.
    """
    for path in (servers.tls_ca, servers.tls_certificate, servers.tls_key):
        if path is not None:
            check_file(path)
    context = ssl.create_default_context(cafile=servers.tls_ca)
    if servers.tls_certificate:
        context.load_cert_chain(servers.tls_certificate, servers.tls_key)
    return context
