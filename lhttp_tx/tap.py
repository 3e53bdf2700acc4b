"""
What the twistd plugin names: options, and the service made of them.
"""

from __future__ import annotations

from twisted.application.service import IService

from lhttp_tx.options import Options
from lhttp_tx.service import LHTTPService

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """Return the service that *options* describe, not started."""
    from twisted.internet import reactor

    return LHTTPService(options.config, reactor=reactor, processors=options.processors, filters=options.filters)
