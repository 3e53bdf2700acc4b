"""A short run of the protocol fuzzer; ``tox -e fuzz-protocol`` makes a long one."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from fuzz.protocol import arguments, run

from integration._server import ServerProcess

SECONDS = 10.0


@pytest.mark.once
def test_nothing_that_clients_do_disturbs_an_honest_one(serve: Callable[..., ServerProcess]) -> None:
    outcome = run(serve(*arguments()), seconds=SECONDS, seed=random.SystemRandom().randrange(2**32), warm_up=2.0)
    print(outcome)
    assert outcome.findings == []
    assert outcome.figures.sent > 100
    assert min(outcome.counts[life] for life in ("websocket", "bad_handshake", "http", "publish")) >= 10
