"""The checker of chaos finds what it is there for."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest
from chaos import returning
from chaos.ledger import Ledger, Reader
from chaos.worlds import Process

E = "e"


def ledger(*offsets: int) -> Ledger:
    found = Ledger("room")
    for offset in offsets:
        found.accept(f"m{offset}", (E, offset))
    return found


def reader(found: Ledger, *offsets: int, begin: int = 0) -> Reader:
    made = Reader("r")
    found.readers.append(made)
    made.start((E, begin))
    for offset in offsets:
        made.take((E, offset), f"m{offset}")
    return made


def problems(found: Ledger, *, may_miss: bool = False) -> list[str]:
    return list(found.problems(may_miss=may_miss))


def test_a_reader_of_everything_is_right() -> None:
    found = ledger(1, 2, 3)
    reader(found, 1, 2, 3)
    reader(found, 3, begin=2)
    assert problems(found) == []


@pytest.mark.parametrize(
    ("taken", "word"),
    [((1, 3), "has not got m2"), ((1, 2), "has not got m3"), ((1, 3, 2), "behind"), ((1, 1), "behind")],
)
def test_a_reader_that_lacks_one_or_has_it_twice_is_wrong(taken: tuple[int, ...], word: str) -> None:
    found = ledger(1, 2, 3)
    reader(found, *taken)
    assert any(word in problem for problem in problems(found))


def test_what_was_told_to_be_missed_is_covered_and_no_more() -> None:
    found = ledger(1, 2, 3, 4)
    made = reader(found, 1)
    made.miss((E, 3))
    assert [problem for problem in problems(found, may_miss=True) if "m4" in problem]
    made.take((E, 4), "m4")
    assert problems(found, may_miss=True) == []
    assert problems(found) != []  # there was no reason


def test_a_new_epoch_covers_the_end_of_the_old_one() -> None:
    found = ledger(1, 2)
    found.accept("n1", ("f", 1))
    found.accept("n2", ("f", 2))
    made = reader(found, 1)
    made.miss(("f", 1))
    made.take(("f", 2), "n2")
    assert problems(found, may_miss=True) == []


def test_one_message_in_two_places_is_wrong() -> None:
    found = ledger(1, 2)
    made = reader(found, 1, 2)
    made.take((E, 3), "m1")
    assert any("took m1 at" in problem for problem in problems(found))


def test_two_messages_in_one_place_are_wrong() -> None:
    found = ledger(1)
    reader(found, 1)
    other = reader(found)
    other.take((E, 1), "x")
    assert any("is m1 and x" in problem for problem in problems(found))


def test_a_reader_that_never_began_is_wrong() -> None:
    found = ledger(1)
    found.readers.append(Reader("r"))
    assert any("never got a receipt" in problem for problem in problems(found))


def test_an_epoch_that_a_reader_was_never_in_is_covered_only_if_it_jumped_over_it() -> None:
    found = ledger(1)
    for epoch in "fgh":
        found.accept(f"{epoch}1", (epoch, 1))
    made = reader(found, 1)
    made.miss(("g", 0))
    assert [problem.split(" at ")[0] for problem in problems(found, may_miss=True)] == [
        "r has not got g1",
        "r has not got h1",
    ]
    made.take(("g", 1), "g1")
    made.miss(("h", 1))
    assert problems(found, may_miss=True) == []


def test_a_message_that_is_published_again_in_another_epoch_is_taken_once() -> None:
    found = ledger()
    found.accept("m1", ("f", 1))
    made = reader(found, 1)  # shown before its publisher knew
    made.miss(("f", 0))
    assert [problem for problem in problems(found, may_miss=True) if "has not got m1" in problem]
    made.pass_over(("f", 1))
    assert problems(found, may_miss=True) == []
    made.taken.clear()
    assert [problem for problem in problems(found, may_miss=True) if "has not got m1" in problem]


def test_a_process_that_ends_by_itself_says_how(tmp_path: Path) -> None:
    process = Process("x", [sys.executable, "-c", "print('port is taken'); raise SystemExit(3)"], tmp_path / "log")

    async def run() -> tuple[str, str]:
        before = process.ended
        await process.start()
        while not process.ended:
            await asyncio.sleep(0.05)
        return before, process.ended

    assert asyncio.run(run()) == ("", "x has ended with 3: port is taken")


def test_a_run_whose_step_cannot_be_done_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returning, "_LIMIT", 0.2)
    run = returning.Returning(tmp_path, random.Random(1), 1.0)
    run._nats = Process("nats", [sys.executable, "-c", "print('port is taken'); raise SystemExit(1)"], tmp_path / "log")
    with pytest.raises(returning.NoResult, match="could not start NATS and the nodes: TimeoutError"):
        asyncio.run(run.run())
