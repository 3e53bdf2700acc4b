"""
Plans: what to do with messages of one head, decided once.

:mod:`lhttp_tx.engine.engine` makes and keeps them; :mod:`lhttp_tx.engine.handling` follows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence as SequenceOf
from typing import cast

from lhttp_tx.codec.defaults import Addition
from lhttp_tx.codec.message import CHANNEL_LISTS, Head
from lhttp_tx.engine.asking import RECEIPT, Tokens
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.idle import overrides
from lhttp_tx.engine.request import Request
from lhttp_tx.engine.sequence import Step
from lhttp_tx.engine.session import Session
from lhttp_tx.interfaces import IHeaderFilter, IProcessor, IShortcutFilter, MaybeAwaitable, Shortcut

__all__ = ["KIND_NAMES", "Kind", "Plan"]

_PLAN_COST = 310
_HEADER_COST = 300
_CHANNEL_COST = 65
_ADDITION_COST = 200
"""
Bytes of memory, measured and rounded up: of a plan, of each header of its head, of each channel that it lists, and of
its default headers. The bytes of the head and the cost of the shortcut are added to these.
"""

_FILED = frozenset({"message-id", "store"})
"""Messages with these headers do not use a shortcut. Only ``message-id`` together with ``receipt`` may use one."""

KIND_NAMES = frozenset({"receipt", *CHANNEL_LISTS, *_FILED})
"""The header names, in addition to those of the filters, that decide the :class:`Kind` of a message. In lower case."""


class Kind:
    """
    The steps for all messages that have the same processor and the same known header names.

    :ivar checks: the filters' checks of the head.
    :ivar lists: those of *names* that list channels.
    :ivar names: the known header names, in lower case.
    :ivar before: the filters' steps before the processor.
    :ivar rest: the filters' ``judge`` steps, the processor's steps and the filters' steps after it.
    :ivar shortcut: a filter with a shortcut, if all steps belong to this filter; else ``None``.
    :ivar simple: whether all steps in *rest* belong to one filter with a shortcut.
    :ivar asked: the same for messages with a header ``receipt``: a filter whose shortcut also serves these; else
        ``None``.
    """

    __slots__ = ("asked", "before", "checks", "lists", "names", "rest", "shortcut", "simple")

    def __init__(self, names: frozenset[str], filters: SequenceOf[IHeaderFilter], processor: IProcessor | None) -> None:
        self.names = names
        self.lists = tuple(name for name in CHANNEL_LISTS if name in names)
        checking = [found for found in filters if overrides(found, "check")]
        self.checks = tuple(found.check for found in checking)
        self.before: tuple[Step, ...] = tuple(
            step for found in filters if overrides(found, "before") for step in _steps(found.before, found)
        )
        after = [found for found in filters if overrides(found, "after")]
        self.rest: tuple[Step, ...] = (
            *((found.judge, found) for found in filters if overrides(found, "judge")),
            *_processor_steps(processor),
            *((found.after, found) for found in after),
        )
        self.shortcut: IShortcutFilter | None = None
        self.asked: IShortcutFilter | None = None
        self.simple = len(after) == 1 and _has_shortcut(after[0]) and all(owner is after[0] for _, owner in self.rest)
        if self.simple and all(owner is after[0] for _, owner in self.before):
            found = cast(IShortcutFilter, after[0])
            if names.isdisjoint(_FILED):
                self.shortcut = found
            if (
                "store" not in names
                and _shortcut_of(found).get("tells_nothing") is True
                and all(other is found for other in checking)
            ):
                self.asked = found


class Plan:
    """
    What to do with messages of one head.

    :ivar addition: the default headers that such messages get; ``None`` if they get none.
    :ivar beginning: the first bytes of such messages: the head and the blank line.
    :ivar before: the filters' steps before the processor.
    :ivar cost: the approximate memory of the plan, in bytes.
    :ivar head: the parsed head, with the default headers; ``None`` if there is a shortcut.
    :ivar owner: the filter that *shortcut* belongs to.
    :ivar receipt: the token of the requested receipt, or ``None``.
    :ivar rest: the filters' ``judge`` steps, the processor's steps and the filters' steps after it.
    :ivar runs_ahead: whether the messages may be handled while receipts of earlier messages wait. Such messages only
        publish, and their answers go out after the receipts.
    :ivar shortcut: handles the messages without a :class:`~lhttp_tx.engine.request.Request` for each; or ``None``.
    :ivar tokens: splits the messages, if the plan is shared by messages that ask for receipts with different tokens.
        The shortcut then gets the messages without the header ``receipt``. Else ``None``.
    :ivar channel: the only channel of a plan with *tokens*; else empty.
    """

    __slots__ = ("addition", "before", "beginning", "channel", "cost", "head", "owner", "receipt", "rest", "runs_ahead",
                 "shortcut", "tokens")  # fmt: skip

    def __init__(self, head: Head, beginning: bytes, kind: Kind, listed: int, addition: Addition | None = None) -> None:
        self.addition = addition
        self.beginning = beginning
        self.channel = ""
        self.tokens: Tokens | None = None
        self.before = kind.before
        self.rest = kind.rest
        self.runs_ahead = kind.simple
        self.receipt = head.headers.get("receipt") if "receipt" in kind.names else None
        self.owner: IShortcutFilter | None = None
        self.shortcut: Shortcut | None = None
        self.cost = _PLAN_COST + 2 * len(beginning) + _CHANNEL_COST * listed
        if addition is not None:
            self.cost += _ADDITION_COST + len(addition.start)
        if kind.shortcut is not None and self.receipt is None:
            self.owner = kind.shortcut
            self.shortcut = kind.shortcut.shortcut(head)
            self.cost += getattr(self.shortcut, "cost", 0)
            if addition is not None and self.shortcut is not None:
                self.shortcut = _Completed(self.shortcut, addition)
        # A plan with a shortcut does not need the head, and there may be many such plans.
        self.head = head if self.shortcut is None else None
        if self.head is not None:
            self.cost += _HEADER_COST * (1 + len(head.headers)) + 2 * len(beginning)

    @classmethod
    def with_tokens(
        cls, head: Head, kind: Kind, tokens: Tokens, channel: str, addition: Addition | None = None
    ) -> Plan:
        """
        Return the plan for messages that ask for receipts.

        :param head: the head of one of them, with the default headers.
        :param kind: the kind of the messages. It has a filter in :attr:`Kind.asked`.
        :param tokens: splits the messages.
        :param channel: the one channel that the messages are published to.
        :param addition: the default headers that *tokens* writes into each message.
        """
        assert kind.asked is not None
        self = cls(head, tokens.key, kind, 1)
        self.head = self.receipt = None
        self.owner, self.shortcut = kind.asked, kind.asked.shortcut(head.without(RECEIPT))
        self.channel, self.tokens, self.addition = channel, tokens, addition
        self.cost = _PLAN_COST + tokens.cost + getattr(self.shortcut, "cost", 0)
        return self


class _Completed:
    """A shortcut that adds the default headers to messages first."""

    __slots__ = ("_addition", "_shortcut")

    def __init__(self, shortcut: Shortcut, addition: Addition) -> None:
        self._shortcut = shortcut
        self._addition = addition

    def __call__(self, session: Session, messages: Iterator[bytes], binary: bool) -> MaybeAwaitable:
        start, cut = self._addition
        return self._shortcut(session, (start + message[cut:] for message in messages), binary)


def _steps(call: Callable[[Request], MaybeAwaitable], owner: IHeaderFilter | IProcessor) -> tuple[Step, ...]:
    """
    Return the steps of a callback that may replace the message. If *owner* is ``trusted``, a step vouches for the
    channels that it has written.
    """
    if not getattr(owner, "trusted", False):
        return ((call, owner),)

    def remember(request: Request) -> None:
        request.state[_steps] = request.message

    def vouch(request: Request) -> None:
        request.vouch(request.state.pop(_steps))

    return ((remember, owner), (call, owner), (vouch, owner))


def _processor_steps(processor: IProcessor | None) -> tuple[Step, ...]:
    if processor is None:
        return ()

    def open_once(request: Request) -> MaybeAwaitable:
        return cast(Conversation, request.session).open_processor(processor)

    if not overrides(processor, "on_open") and not overrides(processor, "on_close"):
        return _steps(processor.on_message, processor)
    return ((open_once, processor), *_steps(processor.on_message, processor))


def _has_shortcut(found: IHeaderFilter) -> bool:
    """Return whether a filter has a shortcut, and no subclass has overridden the steps that the shortcut replaces."""
    return IShortcutFilter.providedBy(found) and "shortcut" in _shortcut_of(found)


def _shortcut_of(found: IHeaderFilter | IShortcutFilter) -> Mapping[str, object]:
    """
    Return the attributes of the most derived class of a filter that defines ``shortcut`` or one of the steps that it
    replaces.
    """
    for kind in type(found).__mro__:
        if not vars(kind).keys().isdisjoint(("shortcut", "after", "before", "judge")):
            return vars(kind)
    return {}
