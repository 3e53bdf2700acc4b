"""
Decides which channels have history, and how much of each is kept, from the rules and the patterns of ``--history``.

Used by the server, and by the check of a configuration without a server.
"""

from __future__ import annotations

from collections.abc import Iterable

from lhttp_tx.history.values import Retention
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.rules.patterns import USER

__all__ = ["check_kept", "kept_classes", "patterns_of", "retention_of"]


def patterns_of(patterns: Iterable[str], retention: Retention) -> Rules:
    """
    Return the patterns of ``--history`` as rules.

    :param patterns: patterns of channels, checked (:func:`lhttp_tx.rules.model.check_history`).
    :param retention: how much is kept of their channels.
    """
    return Rules([Rule(match=pattern, history=retention) for pattern in patterns])


def retention_of(channel: str, rules: Rules | None, patterns: Rules) -> Retention | None:
    """Return how much of a channel is kept; ``None``: nothing. A rule takes precedence over a pattern."""
    found = None if rules is None else rules.find(channel).history
    return patterns.find(channel).history if found is None else found


def kept_classes(rules: Rules | None, patterns: Rules) -> tuple[Retention, ...]:
    """Return each history class that channels may have, once, in the order of the rules."""
    found = (rule.history for rule in (*(rules or ()), *patterns))
    return tuple(dict.fromkeys(retention for retention in found if retention is not None))


def check_kept(rules: Rules | None, patterns: Rules) -> None:
    """
    Check that the rules for history are possible with any store.

    :raises ValueError: if channels of a rule with ``echo = false`` may have history, or if two classes with different
        limits have the same name.
    """
    classes: dict[str, Retention] = {}
    for rule in (*(rules or ()), *patterns):
        if rule.history is not None and classes.setdefault(rule.history.name, rule.history) != rule.history:
            raise ValueError(
                f"two history classes with different bounds have the name {rule.history.name!r}, the second one that "
                f"of the channels {rule.match!r}: give one another name, Retention(name=...)"
            )
    for rule in rules or ():
        if rule.echo:
            continue
        overlapping = patterns.overlapping(rule.match.replace(USER, "*"))
        if rule.history is not None or any(found.history is not None for found in overlapping):
            raise ValueError(
                f"the channel rule {rule.match!r} has echo = false, which cannot be combined with history: the "
                "publisher does not get its own messages, so it would see gaps and recover them; leave out one of the "
                "two"
            )
