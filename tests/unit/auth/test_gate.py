"""The gate: who comes in, as whom, and how long it may take to find out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from lhttp_tx import Authenticator, Identity, Refused
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.auth.gate import Gate
from lhttp_tx.errors import LHTTPError
from lhttp_tx.identity import LAST_TIME
from lhttp_tx.interfaces import IAuthenticator

ATTEMPT = LoginAttempt("192.0.2.1", "c", parameters={"token": "secret", "room": "a"})
ALICE = ATTEMPT.identify("alice")


class Answer(Authenticator):
    """Answers with what it is told to, and counts how often it was asked."""

    def __init__(self, answer: Any = None, *, timeout: float | None = None) -> None:
        self.answer = answer
        self.timeout = timeout
        self.asked = 0

    def authenticate(self, attempt: LoginAttempt) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer() if callable(self.answer) else self.answer


async def later(result: Any) -> Any:
    return result


def gate(*authenticators: IAuthenticator, **options: Any) -> Gate:
    return Gate(authenticators, clock=options.pop("clock", Clock()), **options)


def outcome(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    assert found, "nothing is decided yet"
    return getattr(found[0], "value", found[0])


def test_the_base_class_is_an_authenticator_that_knows_nobody() -> None:
    assert verifyObject(IAuthenticator, Authenticator())
    assert Authenticator().authenticate(ATTEMPT) is None


@pytest.mark.parametrize("answer", [ALICE, lambda: later(ALICE), lambda: Deferred.fromCoroutine(later(ALICE))])
def test_an_answer_may_be_plain_or_come_later(answer: Any) -> None:
    assert outcome(gate(Answer(answer)).admit(ATTEMPT)).user == "alice"


def test_the_first_that_knows_the_client_decides() -> None:
    first, second, third = Answer(), Answer(ALICE), Answer(ATTEMPT.identify("eve"))
    assert outcome(gate(first, second, third).admit(ATTEMPT)).user == "alice"
    assert (first.asked, second.asked, third.asked) == (1, 1, 0)


def test_a_refusal_that_no_client_can_be_told_is_a_failure_of_the_authenticator(failures: list[Any]) -> None:
    refusal = LHTTPError("no")
    refusal.status = 200
    refused = outcome(gate(Answer(refusal)).admit(ATTEMPT))
    assert (refused.status, refused.reason) == (500, "internal error")
    assert len(failures) == 1


def test_a_refusal_is_final() -> None:
    second = Answer(ALICE)
    refused = outcome(gate(Answer(Refused(403, "go away")), second, allow_anonymous=True).admit(ATTEMPT))
    assert (refused.status, refused.reason, second.asked) == (403, "go away", 0)


def test_nobody_comes_in_unknown() -> None:
    refused = outcome(gate(Answer()).admit(ATTEMPT))
    assert refused.status == 401
    assert refused.reason == "log in to connect: the handshake has no credentials that this server accepts"


def test_nobody_in_particular_comes_in_where_that_is_allowed() -> None:
    identity = outcome(gate(Answer(), allow_anonymous=True).admit(ATTEMPT))
    assert (identity.user, identity.connection_id, identity.address) == (None, "c", "192.0.2.1")


def test_who_may_log_in_later_comes_in_without_an_identity() -> None:
    assert outcome(gate(Answer(), login_timeout=5).admit(ATTEMPT)) is None


def test_a_login_message_without_credentials_is_refused_even_where_anybody_comes_in() -> None:
    assert outcome(gate(Answer(), allow_anonymous=True).log_in(ATTEMPT)).status == 401


def test_secret_parameters_are_left_out_of_every_identity() -> None:
    knows = Answer()
    knows.secret_parameters = frozenset({"token"})
    assert outcome(gate(knows, allow_anonymous=True).admit(ATTEMPT)).parameters == {"room": "a"}
    assert outcome(gate(knows, Answer(ALICE)).admit(ATTEMPT)).parameters == {"room": "a"}


@pytest.mark.parametrize("user", ["", " alice", "alice ", "a\nb", "a\x00", "é" * 128, "\ud800", None, 7])
def test_a_user_whose_name_cannot_be_written_down_is_refused(user: Any) -> None:
    refused = outcome(gate(Answer(ATTEMPT.identify(user))).admit(ATTEMPT))
    assert refused.status == 403


def test_a_name_of_full_length_is_none_of_them() -> None:
    user = "é" * 127 + "x"
    assert outcome(gate(Answer(ATTEMPT.identify(user))).admit(ATTEMPT)).user == user


@pytest.mark.parametrize("answer", [ZeroDivisionError("secret"), 7, "alice", lambda: later("alice")])
def test_an_authenticator_that_fails_is_for_the_log(answer: Any, failures: list[Any]) -> None:
    refused = outcome(gate(Answer(answer)).admit(ATTEMPT))
    assert (refused.status, refused.reason) == (500, "internal error")
    assert len(failures) == 1


@pytest.mark.parametrize(("own", "seconds"), [(None, 5), (2, 2)])
def test_an_answer_that_takes_too_long(own: float | None, seconds: float) -> None:
    clock, never = Clock(), Deferred[None]()
    found: list[Any] = []
    gate(Answer(never, timeout=own), clock=clock).admit(ATTEMPT).addErrback(lambda why: found.append(why.value))
    clock.advance(seconds - 0.1)
    assert not found
    clock.advance(0.2)
    assert (found[0].status, found[0].reason) == (503, "the login took too long")
    never.addErrback(lambda why: found.append(why.type))
    assert len(found) == 1
    assert never.called


def test_an_authenticator_that_goes_on_when_it_is_cancelled_is_not_waited_for() -> None:
    clock, rest = Clock(), Deferred[Identity]()

    async def stubborn() -> Identity:
        try:
            await Deferred[None]()
        except CancelledError:
            return await rest
        raise AssertionError

    found: list[Any] = []
    gate(Answer(stubborn), clock=clock).admit(ATTEMPT).addBoth(found.append)
    clock.advance(5)
    assert found[0].value.status == 503
    rest.callback(ALICE)
    assert len(found) == 1


def test_cancelling_leaves_no_timer_behind() -> None:
    clock = Clock()
    found: list[Any] = []
    admission = gate(Answer(Deferred()), clock=clock).admit(ATTEMPT)
    admission.addErrback(lambda why: found.append(why.value))
    admission.cancel()
    assert found[0].status == 503
    assert clock.getDelayedCalls() == []


def test_those_under_way_are_bounded_in_number() -> None:
    waiting: list[Deferred[Any]] = []

    def answer() -> Deferred[Any]:
        waiting.append(Deferred())
        return waiting[-1]

    asked = gate(Answer(answer), max_in_flight=2)
    first, _ = asked.admit(ATTEMPT), asked.admit(ATTEMPT)
    refused = outcome(asked.admit(ATTEMPT))
    assert (refused.status, refused.reason) == (503, "too many logins are in progress")
    waiting[0].callback(ALICE)
    assert outcome(first).user == "alice"
    asked.admit(ATTEMPT)
    assert len(waiting) == 3


def test_what_is_decided_at_once_does_not_count() -> None:
    asked = gate(Answer(ALICE), max_in_flight=1)
    assert [outcome(asked.admit(ATTEMPT)).user for _ in range(3)] == ["alice"] * 3


def test_each_challenge_is_told_once() -> None:
    first, second = Answer(), Answer()
    first.challenges = ("Bearer", "Basic")
    second.challenges = ("Basic", "Other")
    assert gate(first, second).challenges == tuple(("WWW-Authenticate", name) for name in ("Bearer", "Basic", "Other"))


@pytest.mark.parametrize("expires", [float("nan"), float("-inf"), -(10**400), "1", [1]])
def test_an_identity_that_ends_at_no_time_is_a_failure(expires: Any, failures: list[Any]) -> None:
    found = outcome(gate(Answer(replace(ALICE, expires=expires))).admit(ATTEMPT))
    assert (found.status, found.reason) == (500, "internal error")
    assert "whose expires is not a time" in str(failures[0])


@pytest.mark.parametrize("expires", [float("inf"), 1e308, 10**400, LAST_TIME + 1])
def test_an_identity_that_ends_after_all_times_does_not_end(expires: Any) -> None:
    assert outcome(gate(Answer(replace(ALICE, expires=expires))).admit(ATTEMPT)).expires is None
