"""
What happened in a run, and whether it is what was promised. Pure: no sockets, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Ledger", "Reader"]

Place = tuple[str, int]
"""An epoch and an offset."""


@dataclass(slots=True)
class Reader:
    """
    What one subscriber saw of one channel.

    :ivar name: who it is.
    :ivar taken: what it took, in its order: place and message id.
    :ivar again: places where it saw a message once more, and passed it over: a server had shown it and ended before
        its publisher knew, who published it again.
    :ivar missed: stretches that it was told to have missed: from behind a place up to another one.
    :ivar begin: where it began.
    :ivar end: where it is.
    """

    name: str
    taken: list[tuple[Place, str]] = field(default_factory=list)
    again: set[Place] = field(default_factory=set)
    missed: list[tuple[Place, Place]] = field(default_factory=list)
    begin: Place | None = None
    end: Place | None = None

    def start(self, place: Place) -> None:
        """The first receipt has come."""
        if self.begin is None:
            self.begin = place
        self.end = place if self.end is None or self.end[0] != place[0] else max(self.end, place)

    def take(self, place: Place, message_id: str) -> None:
        """A publication was taken."""
        self.taken.append((place, message_id))
        self.end = place

    def pass_over(self, place: Place) -> None:
        """A message was seen that was taken before."""
        self.again.add(place)
        self.end = place

    def miss(self, place: Place) -> None:
        """It was told that everything up to *place* is lost for it."""
        if self.end is not None:
            self.missed.append((self.end, place))
        self.end = place


class Ledger:
    """All that was accepted in one channel, and all who read there."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.accepted: dict[str, Place] = {}
        self.readers: list[Reader] = []

    def accept(self, message_id: str, place: Place) -> None:
        """A publisher has got a receipt."""
        self.accepted[message_id] = place

    def problems(self, *, may_miss: bool) -> Iterator[str]:
        """
        Say what is wrong.

        :param may_miss: whether a ``missed`` is to be expected: the store forgets.
        """
        yield from self._ids()
        for reader in self.readers:
            yield from self._order(reader)
            yield from self._whole(reader)
            if reader.missed and not may_miss:
                yield f"{reader.name} was told that it has missed {reader.missed[0]}, though nothing was lost"

    def _ids(self) -> Iterator[str]:
        """One place has one message, and a reader takes a message once."""
        names: dict[Place, str] = {}
        seen = [(place, name) for reader in self.readers for place, name in reader.taken]
        for place, name in [*((place, name) for name, place in self.accepted.items()), *seen]:
            if names.setdefault(place, name) != name:
                yield f"{place} is {names[place]} and {name}"
        for reader in self.readers:
            places: dict[str, Place] = {}
            for place, name in reader.taken:
                if places.setdefault(name, place) != place:
                    yield f"{reader.name} took {name} at {places[name]} and at {place}"

    def _order(self, reader: Reader) -> Iterator[str]:
        last: Place | None = None
        for place, name in reader.taken:
            if last is not None and last[0] == place[0] and place[1] <= last[1]:
                yield f"{reader.name} got {name} at {place} behind {last}"
            last = place

    def _whole(self, reader: Reader) -> Iterator[str]:
        """Everything accepted between begin and end was taken, or was told to be missed."""
        if reader.begin is None or reader.end is None:
            yield f"{reader.name} never got a receipt"
            return
        taken = {place for place, _ in reader.taken}
        names = {name for _, name in reader.taken}
        for name, place in self.accepted.items():
            if place in taken or (name in names and place in reader.again) or self._is_covered(reader, place):
                continue
            yield f"{reader.name} has not got {name} at {place}; it began at {reader.begin} and is at {reader.end}"

    def _is_covered(self, reader: Reader, place: Place) -> bool:
        assert reader.begin is not None
        if place[0] == reader.begin[0] and place[1] <= reader.begin[1]:
            return True
        ages = {epoch: age for age, epoch in enumerate(dict.fromkeys(epoch for epoch, _ in self.accepted.values()))}
        age = ages[place[0]]
        for begin, end in reader.missed:
            if begin[0] == end[0] == place[0] and begin[1] < place[1] <= end[1]:
                return True
            if begin[0] != end[0] and (
                (place[0] == begin[0] and place[1] > begin[1]) or (place[0] == end[0] and place[1] <= end[1])
            ):
                return True
            # It came from an epoch to another one, and was never there in one between them.
            if begin[0] != end[0] and ages.get(begin[0], -1) < age < ages.get(end[0], len(ages)):
                return True
        return False
