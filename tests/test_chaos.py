"""The checker of chaos finds what it is there for."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest
from chaos import returning
from chaos.accounts import TOLD_WITHIN, Publication, Stay, problems as bus_problems
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


def published(count: int, *, refused: int | None = None) -> list[Publication]:
    """Publications of one client at one a second, each accepted a little later, but for one."""
    made = [Publication("p", number, "room", float(number), number + 0.5) for number in range(count)]
    if refused is not None:
        made[refused].accepted, made[refused].is_refused = None, True
    return made


def stay(*numbers: int, sure: float | None = -1.0, missed: tuple[float, ...] = ()) -> Stay:
    return Stay("s", "room", sure, [f"p.{number}" for number in numbers], list(missed), is_whole=True)


def wrong(sent: list[Publication], *stays: Stay, cuts: tuple[tuple[float, float], ...] = ()) -> list[str]:
    return list(bus_problems(sent, stays, cuts, first=0.0))


def test_a_stay_that_got_everything_once_and_in_order_is_right() -> None:
    assert wrong(published(3), stay(0, 1, 2), stay(1, 2, sure=0.1)) == []


@pytest.mark.parametrize(
    ("taken", "word"),
    [
        ((0, 1, 1, 2), "twice"),
        ((0, 2, 1), "behind p.2"),
        ((0, 1, 2, 7), "nobody has published"),
        ((0, 2), "has not got p.1"),
    ],
)
def test_a_stay_that_got_one_twice_late_or_not_at_all_is_wrong(taken: tuple[int, ...], word: str) -> None:
    found = wrong(published(3), stay(*taken))
    assert len(found) == 1 and word in found[0]


def test_what_was_refused_comes_to_nobody() -> None:
    assert wrong(published(3, refused=1), stay(0, 2)) == []
    assert "which was refused" in wrong(published(3, refused=1), stay(0, 1, 2))[0]


def test_what_is_lost_is_told_after_it_was_sent_and_in_time() -> None:
    sent = published(4)
    assert wrong(sent, stay(0, 3, missed=(2.0,))) == []
    assert [text.split(" in ")[0] for text in wrong(sent, stay(0, 3, missed=(1.5,)))] == ["s has not got p.2"]
    assert len(wrong(sent, stay(0, 3, missed=(2.6 + TOLD_WITHIN,)))) == 2


def test_a_short_cut_between_nats_servers_excuses_what_was_sent_around_it_and_no_more() -> None:
    sent = published(30)
    assert wrong(sent, stay(*range(10), *range(15, 30)), cuts=((11.0, 13.0),)) == []
    assert len(wrong(sent, stay(*range(10), *range(15, 29)), cuts=((11.0, 13.0),))) == 1


def test_a_stay_owes_nothing_before_it_is_sure_or_when_its_connection_ends() -> None:
    sent = published(3)
    assert wrong(sent, stay(sure=None)) == []
    ended = stay(0)
    ended.is_whole = False
    assert wrong(sent, ended) == []


def test_being_told_before_anything_has_failed_is_wrong() -> None:
    assert "before anything had failed" in wrong(published(1), stay(0, missed=(-0.5,)))[0]


def test_a_log_with_a_traceback_is_told(tmp_path: Path) -> None:
    process = Process("node0", [], tmp_path / "log")
    assert process.complaints() == []
    (tmp_path / "log").write_text(
        "connected to NATS\nUnhandled error in Deferred:\nTraceback (most recent call last):\n"
    )
    assert [line.partition(" (")[0] for line in process.complaints()] == [
        "node0: Unhandled error in Deferred:",
        "node0: Traceback",
    ]
