"""
The NATS streams that keep history: one for each history class.

:class:`Stream` creates its stream, checks it, and detects that it was deleted or replaced. Source: the NATS
documentation, "Streams".
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, final

from twisted.logger import Logger

from lhttp_tx.bus.nats.jetstream.asking import ask
from lhttp_tx.bus.nats.jetstream.settings import ERA, MARK, StreamSettings, source_of, stream_name, wanted_config
from lhttp_tx.bus.nats.link import Link
from lhttp_tx.bus.nats.subjects import subject_of
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.values import Retention

__all__ = ["Stream", "StreamState"]

_log = Logger()

_NOT_FOUND = 10059
"""The error code of JetStream for a stream that does not exist."""

_OVERLAP = 10065
"""Its error code for a stream that would take subjects of another one."""

_WATCH = 2.0
"""Seconds between looks at a stream that is well."""

_SHORT = 0.02
"""Seconds before it is looked at again because something is wrong."""

_SUSPICION = 6.0
"""Seconds for which a stream must tell less than before until that is believed."""

_WAITS = (0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 1.0)
"""Seconds between looks at one that is not; the last one holds for all that follow."""

_SAMPLES = 1_000
"""How many moments are remembered of which it is known what was the last message then."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return the names of settings that are not as wanted."""
    return [name for name, value in wanted.items() if name != "metadata" and found.get(name) != value]


def _nanoseconds(time: str) -> int:
    """
    Return a time of the JetStream API, which is UTC with up to nine digits behind the second.

    :raises ValueError: if it is written in another way.
    """
    seconds, _, rest = time.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(seconds + "+00:00").timestamp()) * 10**9 + int(rest[:9].ljust(9, "0"))


def _epoch_of(created: str, era: str) -> str:
    """Return the epoch of a stream that was made at a time."""
    number = _nanoseconds(created)
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return f"{text}_{era}" if era else text


@final
@dataclass(frozen=True, slots=True)
class StreamState:
    """
    A stream as it was at one moment.

    :ivar epoch: changes when its sequence numbers begin anew.
    :ivar first: the sequence number of its oldest message; one more than *last* if it has none.
    :ivar last: that of its newest, be it gone or not.
    :ivar leader: which server leads it.
    :ivar young: nothing from this sequence number on is gone for its age.
    """

    epoch: str
    first: int
    last: int
    leader: str
    young: int


@final
class Stream:
    """
    One stream, which is checked again and again.

    :ivar retention: how much it keeps.
    :ivar name: its name.
    :ivar trouble: why it takes nothing at the moment; empty if it does, and before it was looked at.
    :ivar state: how it was when it was last looked at; ``None`` before that.
    :ivar tip: the largest sequence number that is known to be in use.
    :ivar source: what the subjects of its channels begin with.
    :ivar subject_of: returns the subject of a channel in the stream.
    """

    def __init__(
        self,
        retention: Retention,
        prefix: str,
        settings: StreamSettings,
        link: Callable[[], Link | None],
        changed: Callable[[Stream, StreamState | None, StreamState], None],
    ) -> None:
        """
        :param prefix: what the subjects of channels begin with.
        :param link: returns the link to use.
        :param changed: called with what it was before, and what it is, when it is well again, another one, or led by
            another server. May not raise.
        """
        self.retention = retention
        self.name = stream_name(prefix, retention.name)
        self.trouble = ""
        self.state: StreamState | None = None
        self.tip = 0
        self._prefix = prefix
        self.source = source = source_of(prefix, retention.name)
        self.subject_of = lru_cache(maxsize=4096)(lambda channel: subject_of(channel, source))
        self._settings = settings
        self._link = link
        self._changed = changed
        self._samples: deque[tuple[int, int]] = deque(maxlen=_SAMPLES)
        self._suspected: float | None = None
        self._checked = False
        self._task: asyncio.Task[None] | None = None
        self._kick = asyncio.Event()
        self._looking = asyncio.Lock()
        self._next_look: asyncio.Future[StreamState] | None = None

    @property
    def ready(self) -> bool:
        """Whether it takes messages."""
        return not self.trouble and self.state is not None

    @property
    def why(self) -> str:
        """Why it takes nothing at the moment, for the operator."""
        return self.trouble or "the history store is not open yet"

    @property
    def epoch(self) -> str:
        """
        The epoch of its positions.

        :raises HistoryUnavailable: while that is not known.
        """
        if self.state is None:
            raise HistoryUnavailable(self.why)
        return self.state.epoch

    def keep(self, retention: Retention) -> None:
        """Keep as much as *retention* says from now on."""
        if retention != self.retention:
            self.retention = retention
            self._checked = False
            self.kick()

    def open(self) -> None:
        """Look at it, over and over; also where the link is another one now."""
        self._checked = False
        if self._task is None:
            self._task = asyncio.ensure_future(self._watch())
        self.kick()

    def close(self, why: str) -> None:
        """Look at it no more."""
        self.trouble = why
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def kick(self) -> None:
        """Look at it now: something is wrong."""
        self._kick.set()

    async def _watch(self) -> None:
        failures = 0
        while True:
            self._kick.clear()
            try:
                await self.look()
            except HistoryUnavailable as error:
                if self.trouble != error.reason:
                    _log.error("no history in stream {name}: {why}", name=self.name, why=error.reason)
                self.trouble = error.reason
                wait = _WAITS[min(failures, len(_WAITS) - 1)]
                failures += 1
            except Exception:
                _log.failure("checking a stream failed")
                wait = _WAITS[-1]
            else:
                wait, failures = _WATCH, 0
            try:
                await asyncio.wait_for(self._kick.wait(), wait)
                await asyncio.sleep(_WAITS[0] if failures else _SHORT)
            except TimeoutError:
                pass

    async def look(self) -> StreamState:
        """
        Return what the stream is like after this call; make it if there is none.

        One question is under way at a time, and the next one asks for all who came meanwhile.

        :raises HistoryUnavailable: if it is not as it must be.
        """
        if self._next_look is None:
            self._next_look = asyncio.ensure_future(self._look_next())
            self._next_look.add_done_callback(_look_away)
        return await asyncio.shield(self._next_look)

    async def _look_next(self) -> StreamState:
        async with self._looking:
            self._next_look = None
            tip = self.tip
            answer = await ask(self._link(), f"STREAM.INFO.{self.name}")
            if "error" in answer and answer["error"].get("err_code") == _NOT_FOUND:
                config = wanted_config(self._prefix, self.retention, self._settings)
                answer = await ask(self._link(), f"STREAM.CREATE.{self.name}", config)
                if answer.get("error", {}).get("err_code") == _OVERLAP:
                    raise HistoryUnavailable(
                        f"another stream of NATS has subjects in {config['subjects'][0]}, which the stream {self.name} "
                        "needs: take them out of it, or choose another prefix of subjects"
                    )
                answer, tip = _checked(answer), 0
                if answer.get("did_create"):
                    _log.info("created the stream {name} in NATS for history", name=self.name)
                self._checked = True
            _checked(answer)
            found = answer["config"]
            self._check_owner(found.get("metadata") or {})
            lost = self._has_lost(answer["state"]["last_seq"], tip)
            if not self._checked or lost:
                answer = await self._update(found, lost=lost) or answer
            return self._conclude(answer)

    def _has_lost(self, last: int, tip: int) -> bool:
        """
        Return whether the stream has less than it had.

        A server that was leader, was stopped, and goes on says so for a moment, until it knows that there is another
        leader. So it must be said for a while.

        :param last: the last sequence number that is told now.
        :param tip: the last one that was seen before.
        :raises HistoryUnavailable: while it is not sure.
        """
        now = asyncio.get_running_loop().time()
        if last >= tip:
            self._suspected = None
            return False
        if self._suspected is None:
            self._suspected = now
        if now - self._suspected < _SUSPICION:
            raise HistoryUnavailable(f"the stream {self.name} of NATS reports less than before; asking again")
        self._suspected = None
        return True

    def _check_owner(self, metadata: Mapping[str, str]) -> None:
        if metadata.get(MARK) != "history":
            raise HistoryUnavailable(
                f"the stream {self.name} of NATS was not created by lhttp_tx, which does not use it: "
                "delete it, or choose another prefix of subjects"
            )
        prefix, name = metadata.get(f"{MARK}-prefix"), metadata.get(f"{MARK}-class")
        if (prefix, name) != (self._prefix, self.retention.name):
            raise HistoryUnavailable(
                f"the stream {self.name} of NATS keeps the class {name!r} of the prefix {prefix!r}, so it is not used: "
                "choose another prefix of subjects"
            )

    async def _update(self, found: Mapping[str, Any], *, lost: bool) -> dict[str, Any] | None:
        """Change what is not as wanted; return the answer, or ``None`` if nothing was to change."""
        wanted = wanted_config(self._prefix, self.retention, self._settings)
        different = _differences(wanted, found)
        if found["storage"] != wanted["storage"]:
            raise HistoryUnavailable(
                f"the stream {self.name} of NATS is kept in {found['storage']}, not in {wanted['storage']}, and NATS "
                "cannot change that: delete the stream and its history, or change the option"
            )
        metadata = {**found["metadata"], **wanted["metadata"]}
        if lost:
            metadata[ERA] = f"{int(metadata.get(ERA) or 0) + 1}"
            _log.error("the stream {name} of NATS has lost its messages: its positions start again", name=self.name)
        answer: dict[str, Any] | None = None
        if different or lost:
            config = {**found, **wanted, "metadata": metadata}
            answer = await ask(self._link(), f"STREAM.UPDATE.{self.name}", config)
            if "error" in answer:
                raise HistoryUnavailable(
                    f"the stream {self.name} of NATS differs in {', '.join(different)}, and cannot be changed: "
                    f"{answer['error'].get('description')}"
                )
            _log.info("changed the stream {name}: {what}", name=self.name, what=", ".join(different) or ERA)
        self._checked = True
        return answer

    def _conclude(self, answer: Mapping[str, Any]) -> StreamState:
        cluster = answer.get("cluster")
        leader = "" if cluster is None else cluster.get("leader", "")
        if cluster is not None and not leader and answer["config"]["num_replicas"] > 1:
            raise HistoryUnavailable(
                f"the stream {self.name} of NATS has no leader: too few of its servers are running"
            )
        state, era = answer["state"], (answer["config"].get("metadata") or {}).get(ERA, "")
        last = state["last_seq"]
        first = state["first_seq"] if state["messages"] else last + 1
        before, was_well = self.state, self.ready
        epoch = _epoch_of(answer["created"], era)
        if before is not None and before.epoch != epoch:
            self._samples.clear()
        young = min(first, self._young(_nanoseconds(answer["created"]), _nanoseconds(answer["ts"]), last))
        self.state = StreamState(epoch, first, last, leader, young)
        self.tip = max(last, self.tip if before is not None and before.epoch == self.state.epoch else 0)
        if self.trouble and before is not None:
            _log.info("the stream {name} works", name=self.name)
        self.trouble = ""
        if not was_well or before is None or (before.epoch, before.leader) != (self.state.epoch, leader):
            self._changed(self, before, self.state)
        return self.state

    def _young(self, created: int, now: int, last: int) -> int:
        """
        Return from which sequence number on all are younger than the age at which messages go.

        What was the last one at a time is older than that time, and what is behind it is younger. Where messages go
        for their bytes, too, nothing is known in this way.
        """
        age = self.retention.age
        if not self._samples or now - self._samples[-1][0] > age * 1e9 / _SAMPLES:
            self._samples.append((now, last))
        if self._settings.size:
            return last + 1
        oldest = now - int((age - min(60.0, age / 4)) * 1e9)  # clocks of servers differ
        if created >= oldest:
            return 1
        return next((known + 1 for time, known in self._samples if time >= oldest), last + 1)


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    """:raises HistoryUnavailable: if JetStream answers with an error."""
    if "error" in answer:
        raise HistoryUnavailable(f"JetStream: {answer['error'].get('description') or answer['error'].get('code')}")
    return answer


def _look_away(future: asyncio.Future[StreamState]) -> None:
    if not future.cancelled():
        future.exception()  # asyncio complains of errors that nobody looks at
