"""
The logins of the ``lhttp`` command: with a token from a file, or with a user and a password from a file or a terminal.

Secrets never come from the command line, because every user of the machine can read it. The client sends them in the
opening handshake, which every server with logins checks. Then it sends them in a login message. The answer says when
they expire, and later login messages renew them. Used by the subcommands.
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
from lhttp_tx.guard.files import START_WAIT, read_file

__all__ = ["Connect", "Login", "PasswordLogin", "SecretFile", "TokenLogin", "check_way", "choose_login", "make_client",
           "read_secret"]  # fmt: skip

_MAX_SECRET_SIZE = 8_192
"""The most bytes of a token or a password. By default, a server accepts no larger head."""

Connect = Callable[..., Client]
"""Makes the client of a subcommand: :func:`make_client` with its first three arguments given."""


class Login(Protocol):
    """The credentials of a subcommand."""

    def login(self) -> dict[str, str]:
        """
        Return the headers of a login message. Called for each connection before :meth:`headers`, and for each renewal.
        """

    def headers(self) -> dict[str, str]:
        """Return the headers of a handshake, with the same credentials."""


@final
class SecretFile:
    """A secret in a file, which is read again for each connection and each renewal. A pipe is read only once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._once = False
        self._secret = ""

    def __call__(self) -> str:
        """
        Return the secret. The first call waits for the content of a pipe, later ones for nothing.

        :raises LHTTPError: see :func:`read_secret`. After the first call also if the file is no longer regular.
        :raises OSError: if the file cannot be read.
        """
        if not self._once:
            is_first, is_regular = not self._secret, self._path.is_file()
            self._secret = read_secret(self._path, wait=START_WAIT if is_first else 0.0)
            self._once = is_first and not is_regular
        return self._secret


@final
class TokenLogin:
    """A token from a file. It is read again for each connection and each renewal, unless it is a pipe."""

    def __init__(self, path: Path) -> None:
        self._give = SecretFile(path)
        self._token = ""

    def login(self) -> dict[str, str]:
        """See :class:`Login`. This reads the file."""
        self._token = self._give()
        return {"token": self._token}

    def headers(self) -> dict[str, str]:
        """See :class:`Login`. This does not read the file again."""
        return {"Authorization": f"Bearer {self._token}"}


@final
class PasswordLogin:
    """A user and a password."""

    def __init__(self, user: str, password: Callable[[], str]) -> None:
        """:param password: returns the password. It is called for each connection and each renewal."""
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
    Return a client.

    :param url: the server's URL.
    :param tls: how to verify the server; ``None``: as the system does.
    :param login: the credentials; ``None``: no login.
    :param options: other options of :class:`~lhttp_tx.client.client.Client`.
    """
    if login is not None:
        # This also works with servers that accept credentials only in the handshake, or a token only once.
        options |= {"headers": login.headers, "login": login.login, "login_required": False}
    return Client(url, reactor=reactor, tls=tls, **options)


def choose_login(
    url: str, token_file: Path | None, user: str | None, password_file: Path | None, plaintext: bool
) -> Login | None:
    """
    Return the login according to the options; ``None`` without one. Ask for the password if there is no file with it.

    :raises click.UsageError: if the options cannot be combined, or a secret would be sent unencrypted to another
        machine.
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
        return PasswordLogin(user, SecretFile(password_file))
    password = _ask_password(user)
    return PasswordLogin(user, lambda: password)


def check_way(url: str, plaintext: bool) -> None:
    """
    Check that a secret is not sent unencrypted to another machine.

    :param url: the URL that it is sent to.
    :param plaintext: whether the user allows it anyway.
    :raises click.UsageError: if it would be.
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


def read_secret(path: Path, *, wait: float = START_WAIT) -> str:
    """
    Return the only line of a file. Error texts do not show it.

    :param wait: seconds for which to wait for the content of a pipe. 0: read only regular files.
    :raises LHTTPError: if the file does not have exactly one line of printable text, is too large, or is not regular
        and *wait* is 0 or has passed.
    :raises OSError: if the file cannot be read.
    """
    try:
        data = read_file(path, wait=wait, most=_MAX_SECRET_SIZE)
    except ValueError as error:
        raise LHTTPError(str(error)) from None
    try:
        text = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise LHTTPError(f"{path} does not contain exactly one line of text")
    return text


def _ask_password(user: str) -> str:
    """
    Ask for the password on the terminal, even if the standard input is not one. Do not ask if it would be visible.
    """
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
