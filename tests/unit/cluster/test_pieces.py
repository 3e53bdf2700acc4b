"""Answers that go in pieces."""

from __future__ import annotations

from typing import Any

from lhttp_tx.cluster.pieces import PIECE_SIZE, Pieces, in_pieces

LARGE = {f"{number:06}é": number for number in range(30_000)}


def messages(answer: Any) -> list[dict[str, Any]]:
    pieces = in_pieces(answer)
    return [{"piece": piece, "number": number, "of": len(pieces)} for number, piece in enumerate(pieces, 1)]


def test_a_large_answer_is_put_together_again() -> None:
    told, pieces = messages(LARGE), Pieces()
    assert len(told) > 3
    assert max(len(message["piece"]) for message in told) == PIECE_SIZE
    found = [pieces.add("a", message) for message in told]
    assert found == [None] * (len(told) - 1) + [{"answer": LARGE}]


def test_small_answers_go_whole() -> None:
    assert in_pieces({"a": 1}) == in_pieces(7) == in_pieces(None) == []


def test_answers_of_several_nodes_do_not_mix() -> None:
    told, pieces = messages(LARGE), Pieces()
    for message in told[:-1]:
        assert pieces.add("a", message) is pieces.add("b", message) is None
    assert pieces.add("a", told[-1]) == pieces.add("b", told[-1]) == {"answer": LARGE}


def test_an_answer_with_a_hole_never_gets_whole() -> None:
    told, pieces = messages(LARGE), Pieces()
    assert [pieces.add("a", message) for message in told if message["number"] != 2] == [None] * (len(told) - 1)


def test_pieces_that_do_not_end_are_bounded() -> None:
    pieces = Pieces()
    for number in range(1, 2_000):
        pieces.add("a", {"piece": "x" * PIECE_SIZE, "number": number, "of": 10_000})
    assert pieces._size <= 67_108_864


def test_what_is_no_piece_is_dropped() -> None:
    pieces = Pieces()
    for message in ({"piece": 7, "number": 1, "of": 1}, {"piece": "x"}, {"piece": "{", "number": 1, "of": 1}):
        assert pieces.add("a", message) is None
