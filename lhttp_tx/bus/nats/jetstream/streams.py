"""
The NATS streams that keep history: one for each history class.

:class:`Stream` creates a stream, checks it regularly, and detects that it was deleted or replaced. Source: the NATS
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
"""JetStream's error code for a stream that does not exist."""

_OVERLAP = 10065
"""JetStream's error code for a stream whose subjects belong to another stream."""

_WATCH = 2.0
"""Seconds between checks of a stream that works."""

_SHORT = 0.02
"""Seconds before a check that somebody has asked for."""

_SUSPICION = 6.0
"""Seconds for which a stream must report fewer messages than before until the node believes it."""

_WAITS = (0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 1.0)
"""Seconds between checks of a stream that does not work. The last value is used for all further checks."""

_SAMPLES = 1_000
"""The most times at which the last message of a stream is remembered."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return the names of settings that differ, without the metadata."""
    return [name for name, value in wanted.items() if name != "metadata" and found.get(name) != value]


def _nanoseconds(time: str) -> int:
    """
    Return a time of the JetStream API as nanoseconds since 1970. It is in UTC, with up to nine digits after the second.

    :raises ValueError: if it has another format.
    """
    seconds, _, rest = time.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(seconds + "+00:00").timestamp()) * 10**9 + int(rest[:9].ljust(9, "0"))


def _epoch_of(created: str, era: str) -> str:
    """
    Return the epoch of a stream.

    :param created: the time of its creation.
    :param era: the number of its resets; empty if there was none.
    """
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
    The state of a stream at one time.

    :ivar epoch: changes when the sequence numbers start again.
    :ivar first: the sequence number of the oldest message; *last* + 1 if there is none.
    :ivar last: the last sequence number, even if this message was removed.
    :ivar leader: the name of the server that leads the stream; empty if NATS is not a cluster.
    :ivar young: no message from this sequence number on was removed because of its age.
    """

    epoch: str
    first: int
    last: int
    leader: str
    young: int


@final
class Stream:
    """
    One stream, which is checked regularly.

    :ivar retention: the history class, which says how much the stream keeps.
    :ivar name: the name of the stream.
    :ivar trouble: why the stream does not accept messages; empty if it does, and before the first check.
    :ivar state: the result of the last successful check; ``None`` before the first.
    :ivar tip: the largest known sequence number.
    :ivar refused: the time of the clock at which it last refused a publication; ``None`` if it has taken one since.
    :ivar source: the prefix of the subjects in the stream.
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
        :param retention: the history class.
        :param prefix: the prefix of all subjects of the bus.
        :param settings: the operator's settings.
        :param link: returns the link to use; ``None`` if there is none.
        :param changed: called with the stream, its state before or ``None``, and its state now: when it works again,
            was reset, or has another leader. It must not raise.
        """
        self.retention = retention
        self.name = stream_name(prefix, retention.name)
        self.trouble = ""
        self.state: StreamState | None = None
        self.tip = 0
        self.refused: float | None = None
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
        """Whether the stream accepts messages."""
        return not self.trouble and self.state is not None

    @property
    def why(self) -> str:
        """Why the stream does not accept messages, for the operator."""
        return self.trouble or "the history store is not open yet"

    @property
    def epoch(self) -> str:
        """
        The epoch of positions in the stream.

        :raises HistoryUnavailable: while the epoch is not known.
        """
        if self.state is None:
            raise HistoryUnavailable(self.why)
        return self.state.epoch

    def keep(self, retention: Retention) -> None:
        """Use other limits from now on."""
        if retention != self.retention:
            self.retention = retention
            self._checked = False
            self.kick()

    def open(self) -> None:
        """Begin to check the stream regularly. If it was open already, check it now, because the link is new."""
        self._checked = False
        if self._task is None:
            self._task = asyncio.ensure_future(self._watch())
        self.kick()

    def close(self, why: str) -> None:
        """
        Stop checking the stream.

        :param why: the value of *trouble* from now on.
        """
        self.trouble = why
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def kick(self) -> None:
        """Check the stream now, because something is wrong."""
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
        Check the stream after this call, and return its state. Create the stream if it does not exist.

        One check is under way at a time. The next one serves all callers that came in the meantime.

        :raises HistoryUnavailable: if the stream cannot be used.
        """
        if self._next_look is None:
            self._next_look = asyncio.ensure_future(self._look_next())
            self._next_look.add_done_callback(_retrieve)
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
        Return whether the stream has lost messages at its end.

        A server that was the leader and was paused may report an old state for a moment, until it notices the new
        leader. So the stream must report the loss for :data:`_SUSPICION` seconds.

        :param last: the last sequence number that the stream reports.
        :param tip: the largest sequence number that was known before.
        :raises HistoryUnavailable: while this is not certain.
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
        """
        Change the settings that differ.

        :param found: the configuration of the stream.
        :param lost: whether the stream has lost messages, so that it needs a new epoch.
        :returns: JetStream's answer; ``None`` if there was nothing to change.
        :raises HistoryUnavailable: if a setting cannot be changed.
        """
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
        Return a sequence number from which on no message was removed because of its age.

        The node remembers the last sequence number at several times: later messages are younger than that time. If the
        stream also limits bytes, this says nothing, because messages are removed earlier.

        :param created: the time at which the stream was created, in nanoseconds since 1970.
        :param now: the time of the check, likewise.
        :param last: the last sequence number.
        """
        age = self.retention.age
        if not self._samples or now - self._samples[-1][0] > age * 1e9 / _SAMPLES:
            self._samples.append((now, last))
        if self._settings.size:
            return last + 1
        oldest = now - int((age - min(60.0, age / 4)) * 1e9)  # the clocks of servers differ
        if created >= oldest:
            return 1
        return next((known + 1 for time, known in self._samples if time >= oldest), last + 1)


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    """:raises HistoryUnavailable: if JetStream answers with an error."""
    if "error" in answer:
        raise HistoryUnavailable(f"JetStream: {answer['error'].get('description') or answer['error'].get('code')}")
    return answer


def _retrieve(future: asyncio.Future[StreamState]) -> None:
    if not future.cancelled():
        future.exception()  # asyncio logs errors that nobody has retrieved
