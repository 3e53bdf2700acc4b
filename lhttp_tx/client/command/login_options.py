"""
The logins of the ``lhttp`` command: with a token from a file, or with a user's password from a file or a terminal.

Secrets never come from the command line, which every user of the machine can read. The client sends them with the
opening handshake, which every server with logins checks. Then it sends them in a login message, whose answer tells when
they expire, and which renews them. Used by the subcommands.
"""

from __future__ import annotations

import getpass
import os
import warnings
from base64 import b64encode
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol, final
from urllib.parse import urlsplit

import click
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator

from lhttp_tx.client.client import Client
from lhttp_tx.errors import LHTTPError

__all__ = ["Connect", "Login", "PasswordLogin", "TokenLogin", "check_way", "choose_login", "make_client", "read_secret"]

_MAX_SECRET_SIZE = 8_192
"""The most bytes of a token or a password. A server takes no larger head of a message."""

Connect = Callable[..., Client]
"""Makes the command's client: :func:`make_client` without its first arguments."""


class Login(Protocol):
    """The credentials of the command."""

    def login(self) -> dict[str, str]:
        """Return the headers of a login message. Called first for each connection, and then for each renewal."""

    def headers(self) -> dict[str, str]:
        """Return the headers of a handshake."""


@final
class TokenLogin:
    """A token from a file. It is read again for each connection and each renewal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""

    def login(self) -> dict[str, str]:
        """See :class:`Login`; reads the file."""
        self._token = read_secret(self._path)
        return {"token": self._token}

    def headers(self) -> dict[str, str]:
        """See :class:`Login`; returns the token read for the login message, so that the file may be a pipe."""
        return {"Authorization": f"Bearer {self._token}"}


@final
class PasswordLogin:
    """A user and a password."""

    def __init__(self, user: str, password: Callable[[], str]) -> None:
        """:param password: returns the password, for each connection and each renewal."""
        self._user = user
        self._give = password
        self._password = ""

    def login(self) -> dict[str, str]:
        """See :class:`Login`."""
        self._password = self._give()
        return {"user": self._user, "password": self._password}

    def headers(self) -> dict[str, str]:
        """See :class:`Login`."""
        pair = f"{self._user}:{self._password}".encode()
        return {"Authorization": "Basic " + b64encode(pair).decode("ascii")}


def make_client(
    url: str, tls: IOpenSSLClientConnectionCreator | None, login: Login | None, reactor: Any, **options: Any
) -> Client:
    """
    Return a client that logs in.

    :param login: the credentials; ``None``: anonymous.
    :param options: options of :class:`~lhttp_tx.client.client.Client`.
    """
    if login is not None:
        # This also works with a server that takes credentials only in the handshake, or takes a token only once.
        options |= {"headers": login.headers, "login": login.login, "login_required": False}
    return Client(url, reactor=reactor, tls=tls, **options)


def choose_login(
    url: str, token_file: Path | None, user: str | None, password_file: Path | None, plaintext: bool
) -> Login | None:
    """
    Return the login that the options describe. Ask for a password that is in no file.

    :raises click.UsageError: if the options do not go together, or would send a secret where others can read it.
    """
    if password_file is not None and user is None:
        raise click.UsageError("--password-file needs --user NAME")
    if token_file is not None and user is not None:
        raise click.UsageError("give only one of --token-file and --user")
    if token_file is None and user is None:
        return None
    check_way(url, plaintext)
    if token_file is not None:
        return TokenLogin(token_file)
    assert user is not None
    if password_file is not None:
        return PasswordLogin(user, lambda: read_secret(password_file))
    password = _ask_password(user)
    return PasswordLogin(user, lambda: password)


def check_way(url: str, plaintext: bool) -> None:
    """
    Refuse to send a secret unencrypted to another machine.

    :param plaintext: whether the user allows that.
    :raises click.UsageError: if the secret would be sent unencrypted.
    """
    parts = urlsplit(url)
    if plaintext or parts.scheme in ("wss", "https") or _is_loopback(parts.hostname or ""):
        return
    secure = {"ws": "wss", "http": "https"}[parts.scheme]
    raise click.UsageError(
        f"a {parts.scheme}:// connection to {parts.hostname} is not encrypted, so others on the network could read the "
        f"token or the password; use {secure}://, or add --plaintext-login if you trust the network"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def read_secret(path: Path) -> str:
    """
    Return the only line of a file. No error text shows any of it.

    :raises LHTTPError: if the file contains anything else.
    :raises OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        data = stream.read(_MAX_SECRET_SIZE + 1)
    try:
        text = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable() or len(data) > _MAX_SECRET_SIZE:
        raise LHTTPError(f"{path} does not contain exactly one line of text")
    return text


def _ask_password(user: str) -> str:
    """Ask on the terminal, whatever the standard input is. Never ask where the password would be visible."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            password = getpass.getpass(f"Password of {user}: ")
    except (OSError, getpass.GetPassWarning):
        raise click.UsageError(
            "there is no terminal to ask for the password on; put it into a file and give --password-file"
        ) from None
    except EOFError:
        raise click.Abort from None
    if not password or not password.isprintable():
        raise click.UsageError("this is not a valid password")
    return password
