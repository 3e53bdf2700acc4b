"""
Runs one coroutine of the ``lhttp`` command in a reactor, and converts its result to an exit status.

Used by every subcommand.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure
from zope.interface import provider

from lhttp_tx.client.command.login_options import choose_login, make_client
from lhttp_tx.client.command.text import drop_output

__all__ = ["Exit", "Interrupted", "run_client", "run_program", "start_logging"]

Program = Callable[[Any], Coroutine[Any, Any, int]]


class Exit(IntEnum):
    """The exit status of the command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_CONNECTED = 3
    INTERRUPTED = 128 + signal.SIGINT
    BROKEN_PIPE = 128 + signal.SIGPIPE
    TERMINATED = 128 + signal.SIGTERM


class Interrupted(Exception):
    """
    Raised if a signal has ended the program.

    :ivar status: the exit status for this signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.status = Exit(128 + number)


def start_logging(verbose: bool) -> None:
    """
    Log to the standard error if *verbose* is true. Otherwise log nowhere, because the command reports errors itself.
    """
    observers: list[ILogObserver] = [textFileLogObserver(sys.stderr)] if verbose else [_discard]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)


@provider(ILogObserver)
def _discard(event: LogEvent) -> None:
    """Log nothing."""


def run_program(program: Program) -> int:
    """
    Run *program* in the reactor until it is done.

    SIGINT and SIGTERM cancel the program, so that it can clean up. A second signal stops it at once.

    :param program: a coroutine function that takes the reactor, and returns the exit status.
    :raises Interrupted: if a signal has ended the program.
    :raises Exception: any exception of the program.
    """
    from twisted.internet import reactor  # noqa: TID251 - a program, not a library

    running: Any = reactor
    outcome: list[Any] = []
    signals: list[int] = []

    def start() -> None:
        done: Deferred[Any] = Deferred.fromCoroutine(program(running))

        def interrupt(number: int, _: object) -> None:
            signals.append(number)
            running.callFromThread(done.cancel if len(signals) == 1 else running.stop)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        done.addBoth(outcome.append).addBoth(lambda _: running.stop() if running.running else None)

    running.callWhenRunning(start)
    running.run()
    result = outcome[0] if outcome else Failure(CancelledError())
    if signals and isinstance(result, Failure) and result.check(CancelledError):
        raise Interrupted(signals[0])
    if isinstance(result, Failure):
        result.raiseException()
    status: int = result
    return status


def run_client(
    program: Callable[..., Coroutine[Any, Any, int]],
    *,
    url: str,
    ca_file: Path | None,
    verbose: bool,
    codec: str,
    token_file: Path | None,
    user: str | None,
    password_file: Path | None,
    plaintext_login: bool,
    **settings: Any,
) -> int:
    """
    Run *program* in the reactor, with the argument ``connect``, which makes its client.

    :param settings: more arguments of the program. The other parameters are the options that all subcommands share.
    :raises click.UsageError: if the options cannot be combined.
    """
    if urlsplit(url).scheme not in ("ws", "wss"):
        raise click.UsageError(f"{url} is not a WebSocket URL; only 'lhttp publish' can use HTTP")
    login = choose_login(url, token_file, user, password_file, plaintext_login)
    start_logging(verbose)
    connect = partial(make_client, url, _tls(url, ca_file), login, codec=codec)
    try:
        return run_program(partial(program, connect=connect, **settings))
    except BrokenPipeError:  # caught here, because click would handle it
        drop_output()
        return Exit.BROKEN_PIPE


def _tls(url: str, ca_file: Path | None) -> IOpenSSLClientConnectionCreator | None:
    parts = urlsplit(url)
    if ca_file is None or parts.scheme != "wss":
        return None
    begin = b"-----BEGIN CERTIFICATE-----"
    blocks = [begin + block for block in ca_file.read_bytes().split(begin)[1:]]
    try:
        trusted = trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])
    except Exception:
        raise click.BadParameter(f"{ca_file} contains no certificates in PEM format") from None
    if not blocks:
        raise click.BadParameter(f"{ca_file} contains no certificates in PEM format")
    creator: IOpenSSLClientConnectionCreator = optionsForClientTLS(parts.hostname or "", trustRoot=trusted)
    return creator
