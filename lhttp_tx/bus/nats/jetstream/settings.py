"""
The settings of the streams for history: a value and pure functions, without I/O.

Source: the NATS documentation, "Streams".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar, final

from lhttp_tx.codec.bounds import SECONDS, Bound, check_fields
from lhttp_tx.history.values import Retention

__all__ = ["ERA", "MARK", "NO_PREFIX", "StreamSettings", "check_streams", "source_of", "stream_name", "wanted_config"]

MARK = "lhttp-tx"
ERA = "lhttp-tx-era"
"""Keys of the metadata of streams: the owner of the stream, and the number of its resets."""

NO_PREFIX = "history in NATS needs a prefix of subjects, such as lhttp.: streams cannot do without"
"""The error text if the subjects of a cluster have no prefix."""


@final
@dataclass(frozen=True, slots=True)
class StreamSettings:
    """
    The operator's settings for the streams.

    :ivar replicas: the number of NATS servers that store each message, 1 to 5.
    :ivar storage: ``file`` or ``memory``.
    :ivar size: the most bytes of each stream, at least 65,536; 0: no limit.
    :ivar window: seconds for which message ids are remembered.
    """

    replicas: int = 1
    storage: str = "file"
    size: int = 0
    window: float = 120.0

    BOUNDS: ClassVar[dict[str, Bound]] = {
        "replicas": Bound(int, 1, 5),
        "size": Bound(int, 65_536, 2**60, zero=True),
        "window": SECONDS,
    }

    def __post_init__(self) -> None:
        """
        Check the fields.

        :raises TypeError: if a field has another type.
        :raises ValueError: if a field is out of bounds.
        """
        check_fields(self, self.BOUNDS)
        if self.storage not in ("file", "memory"):
            raise ValueError(f"streams of NATS are kept in a file or in memory, not in {self.storage!r}")


def check_streams(classes: Iterable[Retention], prefix: str) -> None:
    """
    Check that NATS can keep history classes.

    :param classes: the history classes of a node.
    :param prefix: the prefix of all subjects of the bus.
    :raises ValueError: if there are classes and the prefix is empty; if a class limits the bytes of a channel; or if
        two classes have the same name, and so the same stream, but different limits.
    """
    known: dict[str, Retention] = {}
    for retention in classes:
        if not prefix:
            raise ValueError(NO_PREFIX)
        name = retention.name
        if retention.size:
            raise ValueError(
                f"history class {name!r} limits the bytes of a channel, which NATS cannot do: limit messages and age, "
                "and the bytes of the stream"
            )
        if known.setdefault(name, retention) != retention:
            alike = " (it is that of --history, and of history = true)" if name == Retention().name else ""
            raise ValueError(
                f"the history class {name!r}{alike} has different bounds in different places, but one stream in NATS: "
                'use history = "NAME" in a rule, with a table [retention.NAME]'
            )


def stream_name(prefix: str, name: str) -> str:
    """
    Return the name of the stream of a history class.

    :param prefix: the prefix of all subjects of the bus, see :func:`lhttp_tx.bus.nats.subjects.check_prefix`; not
        empty.
    :param name: the name of the class.

    >>> stream_name("lhttp.", "default")
    'LHTTP_default'
    """
    plain = prefix[:-1]
    if re.fullmatch(r"[a-z0-9]{1,64}", plain):
        return f"{plain.upper()}_{name}"
    digest = sha256(prefix.encode("utf-8")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', plain)[:64]}_{digest}_{name}"


def source_of(prefix: str, name: str) -> str:
    """
    Return the prefix of the subjects of a history class, which replaces *prefix* in its stream.

    >>> source_of("lhttp.", "default")
    'lhttp-history.default.'
    """
    return f"{prefix[:-1]}-history.{name}."


def wanted_config(prefix: str, retention: Retention, settings: StreamSettings) -> dict[str, Any]:
    """Return the configuration of the stream of a history class, as the JetStream API takes it."""
    source = source_of(prefix, retention.name) + ">"
    age = int(retention.age * 1e9)
    return {
        "name": stream_name(prefix, retention.name),
        "description": f"history of lhttp_tx, class {retention.name}, subjects {prefix}>",
        "subjects": [source],
        "retention": "limits",
        "storage": settings.storage,
        "discard": "old",
        "max_msgs": -1,
        "max_bytes": settings.size or -1,
        "max_age": age,
        "max_msgs_per_subject": retention.messages + 1,  # the extra one shows that no later one is lost
        "max_msg_size": -1,
        "num_replicas": settings.replicas,
        "duplicate_window": min(int(settings.window * 1e9), age),
        "allow_direct": True,
        "deny_delete": False,
        "deny_purge": False,
        "republish": {"src": source, "dest": prefix + ">"},
        "metadata": {MARK: "history", f"{MARK}-prefix": prefix, f"{MARK}-class": retention.name},
    }
