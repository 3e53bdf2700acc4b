"""
The questions of a node to all others, until they are answered.

A part of :mod:`lhttp_tx.cluster.nodes`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from lhttp_tx.cluster.pieces import Pieces

__all__ = ["Answer", "Questions"]

_MAX_ASKED = 10_000
"""How many questions to all nodes may wait for answers at one time, and how many to one node."""

Answer: TypeAlias = Any
"""A JSON value."""


class _Question:
    """A question to all other nodes, or to one."""

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
        """Return whether another question may wait: one to all nodes, or a private one. Each kind has its own room."""
        return (self._private if is_private else len(self._waiting) - self._private) < _MAX_ASKED

    def open(
        self, names: frozenset[str], timeout: float, is_private: bool = False
    ) -> tuple[int, Deferred[dict[str, Answer]]]:
        """
        Wait for answers.

        :param names: the nodes that are going to answer.
        :param timeout: seconds to wait for an answer, and for each piece of a large one.
        :param is_private: whether the question goes to one node alone.
        :returns: the number of the question, and a Deferred that succeeds with the answers by the nodes' names.
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
        """Wait no more for the answers to a question."""
        self._finish(self._waiting[number])

    def end_all(self) -> None:
        """Wait no more for any answer."""
        for question in tuple(self._waiting.values()):
            self._finish(question)

    def left(self, name: str) -> None:
        """A node has gone, and answers nothing more."""
        for question in tuple(self._waiting.values()):
            question.missing.discard(name)
            if not question.missing:
                self._finish(question)

    def take(self, sender: str, message: dict[str, Any]) -> None:
        """Take a message with an answer, or with a piece of one."""
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
