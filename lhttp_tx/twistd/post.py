"""
Which of a supervisor's workers a process is. The supervisor tells it in an environment variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Post"]


@dataclass(frozen=True, slots=True)
class Post:
    """
    The place of a worker.

    :ivar number: its number, from 1 on.
    :ivar count: how many workers the supervisor has.
    :ivar group: a random text that the workers of one supervisor have in common.
    """

    VARIABLE: ClassVar[str] = "_LHTTP_WORKER"
    """The name of the variable. Users do not set it, so it does not begin as those that they set."""

    number: int
    count: int
    group: str

    def __str__(self) -> str:
        return f"{self.number}/{self.count}/{self.group}"

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Post:
        """
        Return the place that *environment* tells.

        :raises LookupError: if it does not tell one.
        :raises ValueError: if it tells none that is possible.
        """
        number, count, group = environment[cls.VARIABLE].split("/")
        return cls(int(number), int(count), group)
