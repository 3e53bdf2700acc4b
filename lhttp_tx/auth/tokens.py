"""
JSON Web Tokens (RFC 7519) as credentials.

Needs PyJWT and cryptography, the extra ``jwt``. The server imports this module only if tokens are in use.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from jwt.exceptions import (
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
)
from zope.interface import implementer

from lhttp_tx.auth import Authenticator
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.auth.keys import Key, KeySet
from lhttp_tx.errors import Refused
from lhttp_tx.identity import LAST_TIME, Identity
from lhttp_tx.interfaces import IAuthenticator

__all__ = ["TokenAuthenticator"]

_REFRESH_INTERVAL = 10.0
"""The fewest seconds between two attempts to refresh the keys, when tokens name unknown keys."""

_SHOWN_SIZE = 64
"""The most characters of a token's value that an error text repeats."""


@implementer(IAuthenticator)
class TokenAuthenticator(Authenticator):
    """
    Identifies clients by a signed token.

    The token comes from ``Authorization: Bearer``, or from the header ``token`` of a login message. If configured, it
    may also come from a cookie or a query parameter. A token must expire, and the connection ends when it does.
    """

    def __init__(
        self,
        keys: Key | KeySet,
        *,
        audience: str | None = None,
        issuer: str | None = None,
        leeway: float = 0.0,
        cookie: str | None = None,
        parameter: str | None = None,
        user_claim: str = "sub",
        refresh: Callable[[], KeySet | None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        :param keys: the key for all tokens, or a set of keys, from which a token's ``kid`` chooses.
        :param audience: the value that ``aud`` must be or contain; ``None``: tokens with an audience are refused.
        :param issuer: the value that ``iss`` must be; ``None``: any value.
        :param leeway: seconds by which the clock of the tokens' issuer may be wrong.
        :param cookie: the name of a cookie that holds a token.
        :param parameter: the name of a query parameter that holds a token. Beware: queries end up in the logs of
            proxies.
        :param user_claim: the claim that names the user.
        :param refresh: called when a token has an unknown ``kid``, at most once in ten seconds. It returns the current
            keys, or ``None`` if they have not changed. It must not block or raise.
        :param now: returns the current time, in seconds since 1970.
        """
        self.challenges = ('Bearer realm="lhttp"',)
        self.secret_parameters = frozenset(() if parameter is None else (parameter,))
        self._keys = KeySet({None: keys}) if isinstance(keys, Key) else keys
        self._named = isinstance(keys, KeySet)
        self._audience = audience
        self._issuer = issuer
        self._leeway = leeway
        self._cookie = cookie
        self._parameter = parameter
        self._user_claim = user_claim
        self._refresh = refresh
        self._refreshed = -math.inf
        self._now = now

    @property
    def keys(self) -> Key | KeySet:
        """The key that verifies tokens, or a set of named keys."""
        return self._keys if self._named else self._keys.keys[None]

    def set_keys(self, keys: Key | KeySet) -> None:
        """Verify tokens with other keys from now on. Clients that have logged in stay until their tokens expire."""
        self._keys = KeySet({None: keys}) if isinstance(keys, Key) else keys
        self._named = isinstance(keys, KeySet)

    def authenticate(self, attempt: LoginAttempt) -> Identity | None:
        """
        Return the identity that the token of *attempt* stands for; ``None`` if it has no token.

        :raises Refused: with status 401 if the token is not valid.
        """
        token = self._find(attempt)
        if token is None:
            return None
        claims = self._claims(token)
        user = claims.get(self._user_claim)
        if not isinstance(user, str):
            raise Refused(401, f"token has no user: the claim {self._user_claim!r} is missing, or is not text")
        return attempt.identify(user, claims, expires=self._check_times(claims))

    def _find(self, attempt: LoginAttempt) -> str | None:
        token = attempt.token
        if token is None and attempt.message is None:
            if self._cookie is not None:
                token = attempt.cookies.get(self._cookie)
            if token is None and self._parameter is not None:
                token = attempt.parameters.get(self._parameter)
        return token or None

    def _claims(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token, after checking its signature, audience and issuer."""
        try:
            header = jwt.get_unverified_header(token)
        except Exception:
            raise Refused(401, "token is malformed") from None
        key = self._key(header)
        algorithm = header.get("alg")
        if algorithm != key.algorithm:
            raise Refused(401, f"token is signed with {_shown(algorithm)}, its key is for {key.algorithm}")
        if "crit" in header:  # RFC 7515, section 4.1.11: this server knows no such extensions
            raise Refused(401, "token has a crit header")
        try:
            return jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                # Times are checked below, with the leeway, and with the clock that also ends connections.
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_sub": False},
            )
        except InvalidSignatureError:
            raise Refused(401, "token has a wrong signature") from None
        except MissingRequiredClaimError as error:
            raise Refused(401, f"token has no {error.claim}") from None
        except InvalidAudienceError:
            raise Refused(401, "token is for another audience") from None
        except InvalidIssuerError:
            raise Refused(401, "token is from another issuer") from None
        except Exception:  # PyJWT may raise anything for input that it cannot read
            raise Refused(401, "token is malformed") from None

    def _key(self, header: Mapping[str, Any]) -> Key:
        keys = self._keys.keys
        kid = header.get("kid")
        if not self._named or (kid is None and len(keys) == 1):
            (key,) = keys.values()
            return key
        if kid is None:
            raise Refused(401, "token has no kid, and there are several keys")
        if not isinstance(kid, str):
            raise Refused(401, "token is malformed")
        found = keys.get(kid) or self._refreshed_keys().get(kid)
        if found is None:
            raise Refused(401, f"token has the kid {_shown(kid)}, which no key has")
        return found

    def _refreshed_keys(self) -> Mapping[str | None, Key]:
        """Return the keys. Refresh them first, unless the last refresh was less than ten seconds ago."""
        if self._refresh is not None and self._now() - self._refreshed >= _REFRESH_INTERVAL:
            self._refreshed = self._now()
            self._keys = self._refresh() or self._keys
        return self._keys.keys

    def _check_times(self, claims: Mapping[str, Any]) -> float:
        """
        Return the time at which a token expires, in seconds since 1970.

        :raises Refused: if the token has expired, or is not valid yet.
        """
        now = self._now()
        if "exp" not in claims:
            raise Refused(401, "token has no exp")
        expires = _time(claims, "exp") + self._leeway
        if expires <= now:
            raise Refused(401, "token has expired")
        if "nbf" in claims and _time(claims, "nbf") - self._leeway > now:
            raise Refused(401, "token is not valid yet")
        return expires


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -LAST_TIME <= value <= LAST_TIME:  # false for NaN, and for numbers too large for a float
        raise Refused(401, f"token is malformed: {name} is not a time")
    return float(value)


def _shown(value: object) -> str:
    """Return a token's value for an error text: short, one line, ASCII."""
    return ascii(value)[:_SHOWN_SIZE]
