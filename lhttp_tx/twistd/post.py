"""
The number of a worker among those of its supervisor. The supervisor sets it in an environment variable.
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
    :ivar count: the number of workers of the supervisor.
    :ivar group: a random text that the workers of one supervisor share.
    """

    VARIABLE: ClassVar[str] = "_LHTTP_WORKER"
    """The name of the variable. It does not begin with ``LHTTP_``, because users do not set it."""

    number: int
    count: int
    group: str

    def __str__(self) -> str:
        return f"{self.number}/{self.count}/{self.group}"

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Post:
        """
        Return the place in *environment*.

        :raises LookupError: if the variable is missing.
        :raises ValueError: if its value is malformed.
        """
        number, count, group = environment[cls.VARIABLE].split("/")
        return cls(int(number), int(count), group)
