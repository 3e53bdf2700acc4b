"""
The options for authentication, and the authenticators made from them.

A part of :mod:`lhttp_tx.twistd.options`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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

from lhttp_tx.auth.cred import MAX_USERS_FILE, CredAuthenticator
from lhttp_tx.codec.bounds import COUNT, SECONDS, SECONDS_OR_NONE
from lhttp_tx.guard.files import check_file, read_file
from lhttp_tx.interfaces import IAuthenticator
from lhttp_tx.observe.extras import install_command
from lhttp_tx.twistd.loading import load_object
from lhttp_tx.twistd.topics.topic import Topic, usage_errors

if TYPE_CHECKING:
    from lhttp_tx.auth.keys import Key, KeySet

__all__ = ["AuthOptions"]

_log = Logger()

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A cookie's name (RFC 6265, section 4.1.1)."""


class AuthOptions(AuthOptionMixin, Topic):
    """
    ``--auth``, ``--authenticator`` and the options of tokens.

    :ivar authenticators: the authenticators of ``--authenticator``. After the command line is parsed, all
        authenticators.
    """

    optFlags = [
        ["allow-anonymous", None, "Also accept clients without credentials."],
        ["require-auth", None, "Do not start if clients could connect without a login."],
    ]

    optParameters = [
        [
            "login-timeout",
            None,
            0.0,
            "Seconds that a client without credentials has to log in after it connects, 0 to refuse such clients",
            SECONDS_OR_NONE,
        ],
        ["max-failed-logins", None, 3, "Failed login messages before the server closes a connection", COUNT],
        ["auth-timeout", None, 5.0, "Time limit of an authenticator, in seconds", SECONDS],
        ["auth-max-in-flight", None, 100, "Maximum number of logins at the same time", COUNT],
        [
            "jwt-key-file",
            None,
            None,
            "File with the key for JSON Web Tokens: a public key or certificate (PEM), or a secret",
        ],
        ["jwks-file", None, None, "File with a JSON Web Key Set for JSON Web Tokens"],
        ["jwt-audience", None, None, "Required audience (aud) of tokens"],
        ["jwt-issuer", None, None, "Required issuer (iss) of tokens"],
        ["jwt-leeway", None, 0.0, "Allowed difference of the issuer's clock, in seconds", SECONDS_OR_NONE],
        ["jwt-cookie", None, None, "Name of a cookie that may contain a token"],
        [
            "jwt-query",
            None,
            None,
            "Query parameter that may contain a token. Caution: proxies log queries.",
        ],
        ["jwt-user-claim", None, "sub", "Claim that contains the user"],
    ]

    supportedInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        super().__init__()
        self.authenticators: list[IAuthenticator] = []
        self._checkers: list[Any] = []
        self._described: list[str] = []
        self._secret_keys: list[tuple[str, str]] = []

    def opt_auth(self, description: str) -> None:
        """Checker for users and passwords, such as file:PATH; --help-auth lists all kinds (repeatable)"""
        kind, _, argument = description.partition(":")  # the rest may be a password
        if kind == "file" and argument and not Path(argument).is_file():
            if not Path(argument).exists():
                raise usage.UsageError(f"--auth file: there is no file {argument!r}; give its path: file:PATH")
            with usage_errors("--auth file:"):
                check_file(argument, most=MAX_USERS_FILE)
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
            raise usage.UsageError(f"--auth {kind}: it does not accept passwords; see --help-auth")
        if kind == "unix" and importlib.util.find_spec("crypt") is None:
            raise usage.UsageError(
                "--auth unix needs the module crypt, which this version of Python no longer has; use another kind"
            )
        self._checkers.append(checker)
        self._described.append(description)

    def opt_authenticator(self, name: str) -> None:
        """Authenticator to load: package.module:Name or path/to/file.py:Name (repeatable)"""
        with usage_errors():
            self.authenticators.append(load_object(name, IAuthenticator))

    def make_authenticators(self, plugins: Iterable[IAuthenticator], *, any_origin: bool) -> None:
        """
        Make :attr:`authenticators`: the named ones, then tokens, passwords, and plugins, in this order.

        :param plugins: the installed authenticators.
        :param any_origin: whether pages of every site may connect.
        :raises UsageError: if the options contradict each other.
        """
        self._add_tokens(any_origin)
        if self._checkers:
            self.authenticators.append(CredAuthenticator(self._checkers))
        self.authenticators.extend(plugins)
        if self["require-auth"] and self["allow-anonymous"]:
            raise usage.UsageError("--allow-anonymous contradicts --require-auth: leave out one of them")
        if not self.authenticators:
            if self["require-auth"]:
                raise usage.UsageError(
                    "--require-auth: there is no authenticator; add --auth, --jwt-key-file or --authenticator"
                )
            for name in ("allow-anonymous", "login-timeout"):
                if self[name]:
                    raise usage.UsageError(
                        f"--{name} needs an authenticator: add --auth, --jwt-key-file or --authenticator"
                    )
        if self["allow-anonymous"] and self["login-timeout"]:
            raise usage.UsageError("--login-timeout is for clients that must log in: leave out --allow-anonymous")

    def read_keys(self) -> Key | KeySet:
        """
        Return the keys of tokens, from their file.

        :raises UsageError: if it cannot be used.
        """
        return _read_keys(self["jwt-key-file"], self["jwks-file"], self.wait)

    def _add_tokens(self, any_origin: bool) -> None:
        key_file, set_file = self["jwt-key-file"], self["jwks-file"]
        if key_file is None and set_file is None:
            for name in ("jwt-audience", "jwt-issuer", "jwt-leeway", "jwt-cookie", "jwt-query"):
                if self[name]:
                    raise usage.UsageError(f"--{name} is for tokens: name a key with --jwt-key-file or --jwks-file")
            return
        if key_file is not None and set_file is not None:
            raise usage.UsageError(
                "--jwt-key-file and --jwks-file: put all keys into the key set, and give only --jwks-file"
            )
        if importlib.util.find_spec("jwt") is None or importlib.util.find_spec("cryptography") is None:
            raise usage.UsageError(f"--jwt-key-file and --jwks-file need PyJWT: {install_command('jwt')}")
        cookie = self["jwt-cookie"]
        if cookie is not None:
            if not _NAME.fullmatch(cookie):
                raise usage.UsageError(f"--jwt-cookie {cookie!r} is not the name of a cookie")
            if any_origin:
                raise usage.UsageError(
                    "--jwt-cookie with --allow-origin *: pages of any site could act for your users; list the origins"
                )
        from lhttp_tx.auth.tokens import TokenAuthenticator

        keys = self.read_keys()
        if any(key.algorithm == "HS256" for key in getattr(keys, "keys", {None: keys}).values()):
            self._secret_keys.append(("--jwks-file", set_file) if key_file is None else ("--jwt-key-file", key_file))
        self.token_authenticator = TokenAuthenticator(
            keys,
            audience=self["jwt-audience"],
            issuer=self["jwt-issuer"],
            leeway=self["jwt-leeway"],
            cookie=cookie,
            parameter=self["jwt-query"],
            user_claim=self["jwt-user-claim"],
            refresh=None if set_file is None else _Refresh(Path(set_file)),
        )
        self.authenticators.append(self.token_authenticator)


class _Refresh:
    """Reads a key set again if its file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._state = self._look()

    def __call__(self) -> KeySet | None:
        """Return the keys; ``None`` if the file has not changed, or cannot be used. The latter is logged."""
        from lhttp_tx.auth.keys import read_jwks

        state = self._look()
        if state == self._state:
            return None
        self._state = state
        try:
            keys = read_jwks(read_file(self._path))
        except (OSError, ValueError) as error:
            _log.error("{path}: {why}; the old keys stay active", path=str(self._path), why=str(error))
            return None
        _log.info("{path}: active keys: {count}", path=str(self._path), count=len(keys.keys))
        return keys

    def _look(self) -> object:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _takes_passwords(found: Any) -> bool:
    return IUsernamePassword in found.credentialInterfaces


def _read_keys(key_file: str | None, set_file: str | None, wait: float) -> Key | KeySet:
    from lhttp_tx.auth.keys import read_jwks, read_key

    option, path = ("--jwt-key-file", key_file) if key_file is not None else ("--jwks-file", cast(str, set_file))
    assert path is not None
    try:
        content = read_file(path, wait=wait)
    except (OSError, ValueError) as error:
        raise usage.UsageError(f"{option}: {error}") from None
    try:
        if key_file is not None:
            return read_key(content)
        keys = read_jwks(content)
    except ValueError as error:
        raise usage.UsageError(f"{option} {path}: {error}") from None
    for line in keys.left_out:
        _log.warn("{path}: ignored {line}", path=path, line=line)
    return keys
