"""
The options about who clients are, and the authenticators that they make.

A part of :mod:`lhttp_tx.options`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.cred.checkers import FilePasswordDB
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import (
    AuthOptionMixin,
    InvalidAuthArgumentString,
    InvalidAuthType,
    findCheckerFactories,
    makeChecker,
)
from twisted.logger import Logger
from twisted.python import usage

from lhttp_tx.auth.cred import CredAuthenticator
from lhttp_tx.interfaces import IAuthenticator
from lhttp_tx.loading import load_object

if TYPE_CHECKING:
    from lhttp_tx.auth.keys import Key, KeySet

__all__ = ["AUTH_FLAGS", "AuthOptions", "auth_parameters"]

_log = Logger()

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A cookie's name (RFC 6265, section 4.1.1)."""

AUTH_FLAGS = [["allow-anonymous", None, "Let clients without credentials in, too."]]
"""Options without a value."""


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a number") from None
    if not 0 <= seconds <= 86_400:
        raise ValueError(f"{value} is not from 0 to 86400")
    return seconds


_seconds.coerceDoc = "A number from 0 to 86400."  # type: ignore[attr-defined]


def auth_parameters(seconds: Callable[[str], float], count: Callable[[str], int]) -> list[list[Any]]:
    """Return options with a value; *seconds* and *count* take those that must not be zero."""
    return [
        ["login-timeout", None, 0.0, "Seconds in which clients without credentials must log in, 0 for none", _seconds],
        ["max-failed-logins", None, 3, "Failed login messages after which a connection is closed", count],
        ["auth-timeout", None, 5.0, "Seconds that an authenticator may take", seconds],
        ["auth-max-in-flight", None, 100, "Logins under way at one time", count],
        ["jwt-key-file", None, None, "File with the key of tokens: a public key or certificate (PEM), or a secret"],
        ["jwks-file", None, None, "File with a JSON Web Key Set for tokens"],
        ["jwt-audience", None, None, "Audience that tokens must be for"],
        ["jwt-issuer", None, None, "Issuer that tokens must be from"],
        ["jwt-leeway", None, 0.0, "Seconds by which the clock of the issuer may be wrong", _seconds],
        ["jwt-cookie", None, None, "Cookie that may hold a token"],
        [
            "jwt-query",
            None,
            None,
            "Query parameter that may hold a token, though queries end up in the logs of proxies",
        ],
        ["jwt-user-claim", None, "sub", "Claim that names the user"],
    ]


class AuthOptions(AuthOptionMixin):
    """
    ``--auth``, ``--authenticator`` and the options of tokens.

    :ivar authenticators: those that ``--authenticator`` named; once the command line is parsed, all of them.
    """

    supportedInterfaces = (IUsernamePassword,)  # noqa: N815 - Twisted's name

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Any: ...

    def __init__(self) -> None:
        super().__init__()
        self.authenticators: list[IAuthenticator] = []
        self._checkers: list[Any] = []

    def opt_auth(self, description: str) -> None:
        """Users and passwords, as in file:PATH; --help-auth lists what there is (repeatable)"""
        kind = description.partition(":")[0]  # what follows may be a password
        try:
            checker = makeChecker(description)
        except InvalidAuthType:
            known = ", ".join(sorted(found.authType for found in findCheckerFactories() if _takes_passwords(found)))
            raise usage.UsageError(f"--auth {kind}: there is no such kind; there are {known}") from None
        except InvalidAuthArgumentString as error:
            raise usage.UsageError(f"--auth {kind}: {error}; see --help-auth-type {kind}") from None
        except Exception as error:
            raise usage.UsageError(f"--auth {kind}: {type(error).__name__}; see --help-auth-type {kind}") from None
        if not _takes_passwords(checker):
            raise usage.UsageError(f"--auth {kind}: it takes no passwords; see --help-auth")
        if kind == "unix" and importlib.util.find_spec("crypt") is None:
            raise usage.UsageError(
                "--auth unix needs the module crypt, which this Python has no more; use another kind"
            )
        if isinstance(checker, FilePasswordDB) and not Path(checker.filename).is_file():
            raise usage.UsageError(f"--auth file: there is no file {checker.filename!r}; give its path: file:PATH")
        self._checkers.append(checker)

    def opt_authenticator(self, name: str) -> None:
        """Authenticator to load: package.module:Name or path/to/file.py:Name (repeatable)"""
        try:
            self.authenticators.append(load_object(name, IAuthenticator))
        except ValueError as error:
            raise usage.UsageError(str(error)) from None

    def make_authenticators(self, plugins: Iterable[IAuthenticator], *, any_origin: bool) -> None:
        """
        Make :attr:`authenticators` of all that was asked for: the named, tokens, passwords, plugins, in this order.

        :param plugins: those that are installed.
        :param any_origin: whether pages of every site may connect.
        :raises UsageError: if the options do not fit.
        """
        self._add_tokens(any_origin)
        if self._checkers:
            self.authenticators.append(CredAuthenticator(self._checkers))
        self.authenticators.extend(plugins)
        if not self.authenticators:
            for name in ("allow-anonymous", "login-timeout"):
                if self[name]:
                    raise usage.UsageError(
                        f"--{name} is for servers that know users: add --auth, --jwt-key-file or --authenticator"
                    )
        if self["allow-anonymous"] and self["login-timeout"]:
            raise usage.UsageError("--login-timeout is for clients that must log in: leave out --allow-anonymous")

    def _add_tokens(self, any_origin: bool) -> None:
        key_file, set_file = self["jwt-key-file"], self["jwks-file"]
        if key_file is None and set_file is None:
            for name in ("jwt-audience", "jwt-issuer", "jwt-leeway", "jwt-cookie", "jwt-query"):
                if self[name]:
                    raise usage.UsageError(f"--{name} is for tokens: name a key with --jwt-key-file or --jwks-file")
            return
        if key_file is not None and set_file is not None:
            raise usage.UsageError("--jwt-key-file and --jwks-file: write all keys into the key set, and name it alone")
        if importlib.util.find_spec("jwt") is None or importlib.util.find_spec("cryptography") is None:
            raise usage.UsageError("--jwt-key-file and --jwks-file need PyJWT: pip install 'lhttp_tx[jwt]'")
        cookie = self["jwt-cookie"]
        if cookie is not None:
            if not _NAME.fullmatch(cookie):
                raise usage.UsageError(f"--jwt-cookie {cookie!r} is no name of a cookie")
            if any_origin:
                raise usage.UsageError(
                    "--jwt-cookie with --allow-origin *: pages of any site could act for your users; list the origins"
                )
        from lhttp_tx.auth.tokens import TokenAuthenticator

        self.authenticators.append(
            TokenAuthenticator(
                _read_keys(key_file, set_file),
                audience=self["jwt-audience"],
                issuer=self["jwt-issuer"],
                leeway=self["jwt-leeway"],
                cookie=cookie,
                parameter=self["jwt-query"],
                user_claim=self["jwt-user-claim"],
                refresh=None if set_file is None else _Refresh(Path(set_file)),
            )
        )


class _Refresh:
    """Reads a key set again if its file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._state = self._look()

    def __call__(self) -> KeySet | None:
        """Return the keys; ``None`` if the file is as it was, or cannot be used, which is logged."""
        from lhttp_tx.auth.keys import read_jwks

        state = self._look()
        if state == self._state:
            return None
        self._state = state
        try:
            keys = read_jwks(self._path.read_bytes())
        except (OSError, ValueError) as error:
            _log.error("{path}: {why}; the keys of before are in force", path=str(self._path), why=str(error))
            return None
        _log.info("{path}: {count} keys are in force", path=str(self._path), count=len(keys.keys))
        return keys

    def _look(self) -> object:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _takes_passwords(found: Any) -> bool:
    return IUsernamePassword in found.credentialInterfaces


def _read_keys(key_file: str | None, set_file: str | None) -> Key | KeySet:
    from lhttp_tx.auth.keys import read_jwks, read_key

    option, path = ("--jwt-key-file", key_file) if key_file is not None else ("--jwks-file", cast(str, set_file))
    assert path is not None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise usage.UsageError(f"{option}: {error}") from None
    try:
        if key_file is not None:
            return read_key(content)
        keys = read_jwks(content)
    except ValueError as error:
        raise usage.UsageError(f"{option} {path}: {error}") from None
    for line in keys.left_out:
        _log.warn("{path}: left out {line}", path=path, line=line)
    return keys
