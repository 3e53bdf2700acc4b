"""
Decides who may use the admin side: programs with a key. It refuses requests from web pages of other sites.

Knows no request class. Used by :mod:`lhttp_tx.web.admin.site`.
"""

from __future__ import annotations

from collections import OrderedDict
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime

from lhttp_tx.errors import Refused
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.guard.proxies import address_key
from lhttp_tx.guard.rates import TokenBucket
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.web.admin.keys import AdminKey, Keyring
from lhttp_tx.web.admin.problems import Problem

__all__ = ["FAILURES", "MAX_ADDRESSES", "AdminGate"]

_log = RationedLogger(__name__)

FAILURES = 10
"""Wrong keys that one address may send in a row. After these, it may send one a second."""

MAX_ADDRESSES = 1_000
"""The most addresses whose wrong keys are counted. Beyond that, the oldest one is forgotten."""

_DEFAULT_PORTS = {"http": "80", "https": "443"}


class AdminGate:
    """
    Checks the requests of one admin side.

    :ivar keys: the keys in force.
    :ivar policy: the names that the admin side answers to.
    """

    def __init__(self, keys: Keyring, policy: AccessPolicy, clock: IReactorTime) -> None:
        """
        :param keys: the keys.
        :param policy: the names that the admin side answers to. Its other rules are not used.
        :param clock: the reactor.
        """
        self.keys = keys
        self.policy = policy
        self._clock = clock
        self._failures: OrderedDict[str, TokenBucket] = OrderedDict()

    def check_site(self, host: str | None, origin: str | None, fetch_site: str | None) -> None:
        """
        Accept programs and pages of the admin side itself.

        This prevents DNS rebinding, in which a foreign name resolves to this machine, and cross-site request forgery,
        in which a page of another site uses the browser of an operator.

        :param host: the header ``Host``.
        :param origin: the header ``Origin``; browsers send it.
        :param fetch_site: the header ``Sec-Fetch-Site``; browsers send it.
        :raises Problem: with status 400 if the host is malformed, 403 if the admin side does not answer to it, or if
            the page is from another site.
        """
        try:
            self.policy.check_host(host)
        except Refused as refused:
            raise Problem(refused.status, refused.reason) from None
        if fetch_site not in (None, "same-origin", "none") or (origin is not None and not _is_own(origin, host)):
            raise Problem(403, "pages of another site may not use the admin side")

    def log_in(self, address: str | None, authorization: str | None) -> AdminKey:
        """
        Return the key of a request.

        :param address: the caller's address; ``None`` if it has none, as over a UNIX socket.
        :param authorization: the header ``Authorization``: ``Bearer SECRET``.
        :raises Problem: with status 401 without a valid key; 429 after too many wrong ones. Then even a valid key is
            refused.
        """
        told = {"www-authenticate": 'Bearer realm="lhttp admin"'}
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise Problem(401, "a key is needed: Authorization: Bearer SECRET", told)
        place = "" if address is None else address_key(address) or ""
        failures = self._failures.get(place)
        now = self._clock.seconds()
        if failures is not None and failures.wait(now):
            raise Problem(429, "too many wrong keys came from this address: wait a second", {"retry-after": "1"})
        found = self.keys.find(secret.encode("utf-8", "surrogateescape"))
        if found is None:
            self._count_failure(place, now)
            _log.warn("admin: a wrong key came from {address}", address=address or "a UNIX socket")
            raise Problem(401, "this key is not valid", {**told, "www-authenticate": 'Bearer error="invalid_token"'})
        return found

    def _count_failure(self, place: str, now: float) -> None:
        failures = self._failures.pop(place, None) or TokenBucket(1.0, FAILURES, now)
        failures.spend(1, now)
        self._failures[place] = failures
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


def _is_own(origin: str, host: str | None) -> bool:
    """Return whether a page of *origin* comes from the same host and port that it calls."""
    try:
        page, asked = urlsplit(origin), urlsplit(f"//{host or ''}")
        default = _DEFAULT_PORTS.get(page.scheme)
        return (
            default is not None
            and page.hostname is not None
            and page.hostname == asked.hostname
            and str(page.port or default) == str(asked.port or default)
        )
    except ValueError:
        return False
