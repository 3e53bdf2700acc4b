"""
The common base of the topics.

A topic is a class with ``optFlags``, ``optParameters`` and ``opt_`` methods, from which
:class:`~lhttp_tx.twistd.options.Options` inherits. A private module of :mod:`lhttp_tx.twistd.topics`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from lhttp_tx.guard.files import START_WAIT, check_file, read_file
from lhttp_tx.observe.reasons import reason_of
from lhttp_tx.ports.certificates import tls_files

__all__ = ["Topic", "check_endpoint", "checked_port", "read_secret", "usage_errors"]


class Topic:
    """
    The base class of the topics.

    :ivar wait: seconds for which reading a file may wait if it is a pipe; 0 after the server has started.
    """

    optFlags: list[list[Any]]
    optParameters: list[list[Any]]
    wait: float = START_WAIT

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Any: ...


@contextmanager
def usage_errors(option: str = "") -> Iterator[None]:
    """
    Turn a :exc:`ValueError` into a :exc:`~twisted.python.usage.UsageError`.

    :param option: the beginning of its text, such as ``--nats`` or ``--unix-group:``.
    """
    try:
        yield
    except ValueError as error:
        raise usage.UsageError(f"{option} {error}".lstrip()) from None


def read_secret(option: str, path: str | None, *, wait: float) -> str | None:
    """
    Return the content of a file, without the white space around it; ``None`` if *path* is ``None``.

    :param wait: as for :func:`~lhttp_tx.guard.files.read_file`.
    :raises UsageError: if it cannot be read, is not UTF-8, or is empty.
    """
    if path is None:
        return None
    try:
        secret = read_file(path, wait=wait).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        raise usage.UsageError(f"{option}: {error}") from None
    if not secret:
        raise usage.UsageError(f"{option}: {path} is empty")
    return secret


def checked_port(option: str, digits: str) -> str:
    """:raises UsageError: if *digits* is not a port number."""
    if len(digits) > 5 or int(digits) > 65_535:
        raise usage.UsageError(f"{option} {digits[:20]}: a port is a number from 0 to 65535")
    return digits


def check_endpoint(option: str, description: str) -> None:
    """:raises UsageError: if *description* does not describe an endpoint to listen on."""
    with usage_errors(f"{option} {description!r}:"):
        for path in tls_files(description):
            with suppress(OSError):  # Twisted finds the same
                check_file(path)
    try:
        serverFromString(None, description)  # it does not use the reactor yet
    except Exception as error:
        if isinstance(error, OSError):
            raise usage.UsageError(f"{option} {description!r}: {reason_of(error)}") from None
        if type(error).__module__.startswith("OpenSSL."):  # pyOpenSSL is optional
            advice = "privateKey= and certKey= name files in PEM, one with a key, one with a certificate"
            raise usage.UsageError(f"{option} {description!r}: OpenSSL cannot read it; {advice}") from None
        raise usage.UsageError(
            f"{option} {description!r}: {error}; write an endpoint such as tcp:8081:interface=127.0.0.1"
        ) from None
