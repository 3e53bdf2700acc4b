"""
The questions of a node to other nodes, until they are answered.

A part of :mod:`lhttp_tx.cluster.nodes`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.cluster.pieces import Pieces

__all__ = ["Answer", "Questions"]

_MAX_ASKED = 10_000
"""The most questions to all nodes that may wait for answers at the same time, and the most to one node."""

Answer: TypeAlias = Any
"""A JSON value."""


class _Question:
    """
    A question to all other nodes, or to one.

    :ivar missing: the nodes that have not answered yet.
    :ivar timeout: the most seconds to wait for an answer, or for its next piece.
    :ivar pieces: incomplete answers.
    :ivar answers: the answers so far, by node.
    :ivar done: succeeds with *answers*.
    :ivar limit: the timer.
    :ivar is_private: whether the question went to one node only.
    """

    def __init__(self, missing: set[str], timeout: float) -> None:
        self.missing = missing
        self.timeout = timeout
        self.pieces = Pieces()
        self.answers: dict[str, Answer] = {}
        self.done: Deferred[dict[str, Answer]] = Deferred()
        self.limit: IDelayedCall | None = None
        self.is_private = False


class Questions:
    """The questions that wait for answers."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: the reactor."""
        self._clock = clock
        self._waiting: dict[int, _Question] = {}
        self._number = 0
        self._private = 0

    def has_room(self, is_private: bool = False) -> bool:
        """
        Return whether another question to all nodes, or another private one, may wait. Each kind has its own limit.
        """
        return (self._private if is_private else len(self._waiting) - self._private) < _MAX_ASKED

    def open(
        self, names: frozenset[str], timeout: float, is_private: bool = False
    ) -> tuple[int, Deferred[dict[str, Answer]]]:
        """
        Wait for answers.

        :param names: the nodes that will answer.
        :param timeout: the most seconds to wait for the answers, and for each piece of a large one.
        :param is_private: whether the question goes to one node only.
        :returns: the number of the question, and a Deferred that succeeds with the answers by the nodes' names. Nodes
            that have not answered in time are missing.
        """
        self._number += 1
        number = self._number
        question = self._waiting[number] = _Question(set(names), timeout)
        question.is_private = is_private
        self._private += is_private
        question.done.addCallback(self._forget, number)
        question.limit = self._clock.callLater(timeout, self._finish, question)
        return number, question.done

    def end(self, number: int) -> None:
        """Stop waiting for answers to a question. Its Deferred succeeds with the answers so far."""
        self._finish(self._waiting[number])

    def end_all(self) -> None:
        """Stop waiting for all answers."""
        for question in tuple(self._waiting.values()):
            self._finish(question)

    def left(self, name: str) -> None:
        """Stop waiting for answers of a node, because it is gone."""
        for question in tuple(self._waiting.values()):
            question.missing.discard(name)
            if not question.missing:
                self._finish(question)

    def take(self, sender: str, message: dict[str, Any]) -> None:
        """Take a message with an answer or a piece of one. Ignore it if nobody waits for it."""
        asked = message.get("to")
        question = self._waiting.get(asked) if isinstance(asked, int) else None
        if question is None or sender not in question.missing:
            return
        if "piece" in message:
            if question.limit is not None and question.limit.active():
                question.limit.reset(question.timeout)
            whole = question.pieces.add(sender, message)
            if whole is None:
                return
            message = whole
        question.missing.discard(sender)
        question.answers[sender] = message["answer"]
        if not question.missing:
            self._finish(question)

    def _forget(self, answers: dict[str, Answer], number: int) -> dict[str, Answer]:
        self._private -= self._waiting.pop(number).is_private
        return answers

    def _finish(self, question: _Question) -> None:
        if question.limit is not None and question.limit.active():
            question.limit.cancel()
        if not question.done.called:
            question.done.callback(question.answers)
