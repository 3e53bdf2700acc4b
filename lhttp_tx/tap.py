"""
What the twistd plugin names: options, and the service made of them.
"""

from __future__ import annotations

from twisted.application.service import IService
from twisted.python.usage import UsageError

from lhttp_tx.options import Options

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """
    Return the service that *options* describe, not started.

    :raises UsageError: if a processor and a plugin have the same command.
    """
    from twisted.internet import reactor

    from lhttp_tx.service import LHTTPService

    try:
        return LHTTPService(
            options.config, reactor=reactor, processors=options.processors, filters=options.filters
        )
    except ValueError as error:
        raise UsageError(f"{error}; leave one out, or start with --no-plugins") from error
