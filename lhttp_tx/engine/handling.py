"""
Handles one message: takes it through the steps of its plan, and answers it.

Stands between :mod:`lhttp_tx.engine.answering` and :mod:`lhttp_tx.engine.conversation`. The latter decides which
message is next.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from operator import length_hint
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.codec.message import Message, parse
from lhttp_tx.engine.answering import PATIENCE, Answerer
from lhttp_tx.engine.answers import not_the_clients, receipt_of
from lhttp_tx.engine.asking import Asking
from lhttp_tx.engine.receipts import sent_at_once
from lhttp_tx.engine.request import Request
from lhttp_tx.engine.sequence import Done, Step
from lhttp_tx.errors import HistoryUnavailable, LHTTPError, Refused, RemoteProtocolError
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import ITransport, MaybeAwaitable
from lhttp_tx.observe.rationing import RationedLogger

if TYPE_CHECKING:
    from lhttp_tx.engine.engine import Engine
    from lhttp_tx.engine.plans import Plan

__all__ = ["Handler"]

_log = RationedLogger(__name__)


class Handler(Answerer):
    """The layer of a session that handles its messages, one at a time."""

    __slots__ = ("_run",)

    def __init__(self, *, engine: Engine, transport: ITransport, identity: Identity | None = None) -> None:
        """See :class:`lhttp_tx.engine.session.Session`."""
        super().__init__(engine=engine, transport=transport, identity=identity)
        self._run: list[bytes] | None = None

    def unhurried(self, waiting: Deferred[None]) -> Deferred[None]:
        """
        Return *waiting*. Until *waiting* fires, the current message has no time limit. Then its time limit starts
        again.

        Use it in a step that waits for the client to read, or for other clients.
        """
        self._sequence.hold()
        return waiting.addBoth(self._go_on)

    def _go_on(self, result: None) -> None:
        self._sequence.release()
        return result

    def _handle(self, data: bytes, binary: bool) -> None:
        try:
            plan = self._engine.plan(data)
        except Exception:
            self._refuse(data)
            return
        if plan.shortcut is None:
            self._follow(plan, data, binary)
        elif plan.tokens is None:
            self._take_shortcut(plan, [data], binary)
        else:
            self._take_asking(plan, [data], binary)

    def _refuse(self, data: bytes) -> None:
        """
        Answer a message whose plan could not be made. Call this in the ``except`` clause: it answers with that
        exception.
        """
        self._answer(receipt_of(data, self._engine.limits), Failure())

    def _drop(self, data: bytes, binary: bool) -> None:
        """Drop a message that has waited too long in the queue, and tell the client and the hooks."""
        refused = Refused(503, f"message waited longer than {self._engine.wait_timeout:g} seconds")
        self._answer(receipt_of(data, self._engine.limits), Failure(refused))
        try:
            message = parse(data, binary=binary, limits=self._engine.limits)
        except LHTTPError:
            return
        for call in self._engine.on_wait_timeout:
            call(self, message)

    def _follow(self, plan: Plan, data: bytes, binary: bool) -> None:
        """Run the steps of the plan for one message."""
        assert plan.head is not None
        if plan.addition is not None:
            data = plan.addition.to(data)
        request = Request(self, Message.from_parts(plan.head, data, binary), plan.receipt)
        steps, done = (plan.before, self._before_done) if plan.before else (plan.rest, self._rest_done)
        if self._receipts is not None:
            steps = self._behind_receipts(plan, steps)
        self._sequence.run(steps, request, done)

    def _follow_alone(self, data: bytes, binary: bool) -> None:
        """
        Handle a message without the shortcut of its plan, or refuse it: a head with a zero byte in place of a token has
        the key of a plan.
        """
        try:
            plan = self._engine.plan_alone(data)
        except Exception:
            self._refuse(data)
        else:
            self._follow(plan, data, binary)

    def _behind_receipts(self, plan: Plan, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Return *steps*. If the message has to wait for earlier receipts, a step that waits comes first."""
        receipts = self._receipts
        if receipts is None or (plan.runs_ahead and receipts.has_room):
            return steps
        return ((lambda _: receipts.settled() if receipts is self._receipts else None, PATIENCE), *steps)

    def _not_too_large(self, plan: Plan, run: list[bytes]) -> list[bytes]:
        """Return the messages of *run* before the first one that is too large. The first message is never too large."""
        limit = self._room(plan)
        if max(map(len, run)) <= limit:
            return run
        return list(takewhile(lambda message: len(message) <= limit, run))

    def _room(self, plan: Plan) -> int:
        """Return the most bytes that a message may have before it gets the default headers."""
        limit = self._engine.limits.message_size
        return limit if plan.addition is None else limit - plan.addition.size

    def _take_shortcut(self, plan: Plan, run: list[bytes], binary: bool) -> int:
        """
        Handle the messages of *run* with the plan's shortcut. Return how many are left, because one before has to wait.
        """
        self._run = run
        messages = iter(run)
        left = len(run)
        while left:
            result, failure, left = self._call_shortcut(plan, messages, binary, left)
            if failure is not None:
                self._answer(None, failure)
            elif result is not None:
                self._wait(plan, result, None, self._shortcut_done)
            if self._sequence.waiting is not None or not run:
                break
        self._run = None
        return left if run else 0

    def _call_shortcut(
        self, plan: Plan, messages: Iterator[bytes], binary: bool, left: int
    ) -> tuple[MaybeAwaitable, Failure | None, int]:
        """
        Call the plan's shortcut.

        :param left: the number of messages in the iterator.
        :returns: the result of the shortcut, its failure, and the number of messages that it has left. The result and
            the failure belong to the last message that the shortcut took.
        """
        assert plan.shortcut is not None
        result, failure = None, None
        try:
            result = plan.shortcut(self, messages, binary)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException:  # as in a step of a sequence
            failure = Failure()
        now = length_hint(messages)
        if now == left:
            next(messages, None)  # it took no message: skip one, so that the loop ends
            now -= 1
        return result, failure, now

    def _wait(self, plan: Plan, result: object, argument: Any, done: Done) -> None:
        assert plan.owner is not None
        self._sequence.wait(result, plan.owner, argument, done)

    def _shortcut_done(self, _: object, failure: Failure | None) -> None:
        if failure is not None:
            self._answer(None, failure)

    def _take_asking(self, plan: Plan, messages: list[bytes], binary: bool, first: int = 0) -> int:
        """
        Handle consecutive messages of this plan from *first* on with the shortcut, and send their receipts.

        :returns: the number of messages handled, at least one.
        """
        assert plan.tokens is not None
        archive, receipts = self._engine.hub.archive, self._receipts
        is_kept = archive is not None and archive.retention(plan.channel) is not None
        has_room = receipts is None or receipts.has_room
        tokens, run = plan.tokens.split_run(messages, first, self._room(plan))
        if not has_room or not tokens:  # a head without a blank line cannot be split
            self._follow_alone(messages[first], binary)
            return 1
        self._run = run
        waiting = iter(run)
        count = left = len(run)
        while left:
            asking = Asking(plan.channel, plan.tokens, archive, is_kept=is_kept)
            begin = count - left
            result, failure, left = self._call_shortcut(plan, waiting, binary, left)
            asking.took(tokens[begin : count - left])
            if failure is not None:
                self._answer_asking(asking, failure, asking.done)
            elif result is not None:
                self._wait(plan, result, asking, self._asking_done)
            else:
                self._answer_asking(asking, None, asking.count)
            if self._sequence.waiting is not None or not run:
                break
        self._run = None
        return count - left

    def _asking_done(self, asking: Asking, failure: Failure | None) -> None:
        self._answer_asking(asking, failure, asking.count if failure is None else asking.sure)

    def _answer_asking(self, asking: Asking, failure: Failure | None, count: int) -> None:
        """Send receipts for the first *count* publications, and errors for the others."""
        answers = asking.answers(count)
        if answers:
            receipts = self._receipts
            confirmation = self._engine.hub.confirm(asking.is_kept) if receipts is None else None
            if receipts is None and confirmation is None:
                self._send_answers([sent_at_once(answer) for answer in answers], False)
            else:
                self._add(answers, confirmation)
        if failure is not None:
            cause = getattr(failure.value, "__cause__", None)  # of one publication, not of the run
            failure = Failure(cause) if isinstance(cause, HistoryUnavailable) else failure
            for token in asking.refused(count):
                self._answer(token, failure)

    def _before_done(self, request: Request, failure: Failure | None) -> None:
        if failure is None:
            try:
                plan = self._engine.plan_for(request.message.head)
            except RemoteProtocolError as error:
                failure = not_the_clients(error)
            except Exception:
                failure = Failure()
            else:
                self._sequence.run(self._behind_receipts(plan, plan.rest), request, self._rest_done)
                return
        self._answer(request.receipt, failure)

    def _rest_done(self, request: Request, failure: Failure | None) -> None:
        if failure is not None:
            self._answer(request.receipt, failure)
        elif request.receipt is not None:
            try:
                pairs = [("receipt-id", request.receipt), *request.receipt_headers]
                filing = request.filing
                if filing is not None and not filing.is_open:
                    pairs += filing.headers()
                receipt = Message("receipt", pairs, request.receipt_body, binary=request.receipt_binary)
                self._say(receipt, request.receipt if request.published else None, filing, request.published_to)
            except Exception:
                self._answer(request.receipt, Failure())
