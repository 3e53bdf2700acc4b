"""lhttp_tx.web.events.tickets: good once, for some seconds, and not without a bound."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from lhttp_tx.errors import Refused
from lhttp_tx.identity import Identity
from lhttp_tx.web.events.tickets import LIFETIME, Tickets


def ada(number: int = 0) -> Identity:
    return Identity(f"ada{number}", "c1", {"role": "x"}, {"secret": "y"})


def test_a_ticket_is_good_once() -> None:
    tickets = Tickets(Clock())
    ticket = tickets.issue(ada())
    found = tickets.redeem(ticket)
    assert (found.user, found.claims, found.parameters) == ("ada0", {"role": "x"}, {})
    with pytest.raises(Refused) as caught:
        tickets.redeem(ticket)
    assert caught.value.status == 403


def test_a_ticket_is_good_for_some_seconds() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    early, late = tickets.issue(ada()), tickets.issue(ada())
    clock.advance(LIFETIME - 1)
    assert tickets.redeem(early).user == "ada0"
    clock.advance(1)
    with pytest.raises(Refused, match="has expired"):
        tickets.redeem(late)
    assert len(tickets) == 0


def test_a_user_has_few_tickets_and_gets_more_when_they_are_gone() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    for _ in range(16):
        tickets.issue(ada())
    with pytest.raises(Refused) as caught:
        tickets.issue(ada())
    assert caught.value.status == 429
    tickets.issue(ada(1))
    clock.advance(LIFETIME)
    tickets.issue(ada())
    assert len(tickets) == 1


def test_all_users_together_have_a_bound() -> None:
    tickets = Tickets(Clock())
    for number in range(10_000):
        tickets.issue(ada(number))
    with pytest.raises(Refused, match="too many unused tickets"):
        tickets.issue(ada(10_001))


def test_what_is_known_of_users_is_bounded_by_its_bytes() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    large = {f"claim{number}": "x" for number in range(1_000)}
    issued: list[str] = []
    with pytest.raises(Refused) as caught:
        issued.extend(tickets.issue(Identity(f"user{number}", "c", large)) for number in range(10_000))
    assert caught.value.status == 429
    assert 50 < len(issued) < 200
    tickets.redeem(issued[0])
    tickets.issue(Identity("one", "c", large))
    clock.advance(LIFETIME)
    for number in range(50):
        tickets.issue(Identity(f"user{number}", "c", large))
