"""
What happened on channels without history, and whether it is what was promised. Pure: no sockets, no clock.

All times are seconds of one clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["TOLD_WITHIN", "Publication", "Stay", "problems"]

TOLD_WITHIN = 30.0
"""Seconds after a publication within which a subscriber that has not got it is told: failures last for some of them."""

_AROUND = 2.0
"""Seconds that NATS takes to find that a route is lost, and to make it again."""


@dataclass(slots=True)
class Publication:
    """
    One publication.

    :ivar client: the connection that sent it, whose publications arrive in order.
    :ivar number: its place among those of *client*.
    :ivar sent: when.
    :ivar accepted: when it had a receipt, or a later one of *client* had; ``None`` if it is not known.
    :ivar is_refused: whether it got an error that says that nobody has got it.
    """

    client: str
    number: int
    channel: str
    sent: float
    accepted: float | None = None
    is_refused: bool = False

    @property
    def name(self) -> str:
        """Its body."""
        return f"{self.client}.{self.number}"


@dataclass(slots=True)
class Stay:
    """
    What one connection of a subscriber that asked to be told of gaps got from one channel.

    :ivar sure: when it had a receipt without ``unsure``; ``None`` if never.
    :ivar taken: the names that came, in their sequence.
    :ivar missed: when it was told that it may have missed something.
    :ivar is_whole: whether the connection was there until everything was quiet.
    """

    name: str
    channel: str
    sure: float | None = None
    taken: list[str] = field(default_factory=list)
    missed: list[float] = field(default_factory=list)
    is_whole: bool = False


def problems(
    publications: Iterable[Publication], stays: Iterable[Stay], short_cuts: Sequence[tuple[float, float]], first: float
) -> Iterator[str]:
    """
    Say what is wrong.

    :param short_cuts: when routes between NATS servers were cut for less than the time between two heartbeats. Nobody
        may notice that.
    :param first: when the first failure began; before it, nothing is missed.
    """
    sent = {each.name: each for each in publications}
    for stay in stays:
        yield from _order(stay, sent)
        yield from _whole(stay, sent.values(), short_cuts)
        if stay.missed and stay.missed[0] < first:
            yield f"{stay.name} was told that it has missed something in {stay.channel} before anything had failed"


def _order(stay: Stay, sent: dict[str, Publication]) -> Iterator[str]:
    """Each comes once, behind those that its client sent before, and none that was refused comes."""
    seen: set[str] = set()
    last: dict[str, int] = {}
    for name in stay.taken:
        found = sent.get(name)
        if found is None or found.channel != stay.channel:
            yield f"{stay.name} got {name} in {stay.channel}, which nobody has published there"
            continue
        if name in seen:
            yield f"{stay.name} got {name} twice"
        elif found.number < last.get(found.client, -1):
            yield f"{stay.name} got {name} behind {found.client}.{last[found.client]}"
        elif found.is_refused:
            yield f"{stay.name} got {name}, which was refused"
        seen.add(name)
        last[found.client] = max(found.number, last.get(found.client, -1))


def _whole(stay: Stay, sent: Iterable[Publication], short_cuts: Sequence[tuple[float, float]]) -> Iterator[str]:
    """
    Everything accepted has come, or it was told that something is missing.

    A NATS server that is killed may lose the last ones that it confirmed. The node whose server it was says so, so this
    is told, too.
    """
    if stay.sure is None or not stay.is_whole:
        return
    taken = set(stay.taken)
    lost = [
        each
        for each in sent
        if each.channel == stay.channel
        and each.accepted is not None
        and each.sent > stay.sure
        and each.name not in taken
        and not any(begin - _AROUND < each.sent < end + _AROUND for begin, end in short_cuts)
    ]
    for each in lost:
        assert each.accepted is not None
        if not any(each.sent <= when <= each.accepted + TOLD_WITHIN for when in stay.missed):
            told = ", ".join(f"{when:.2f}" for when in stay.missed)
            yield (
                f"{stay.name} has not got {each.name} in {stay.channel}, sent at {each.sent:.2f} and accepted at "
                f"{each.accepted:.2f}, and was not told; sure at {stay.sure:.2f}, told at {told or 'no time'}"
            )
