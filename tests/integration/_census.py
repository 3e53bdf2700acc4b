"""A processor that counts what a server holds, from inside; ``--processor FILE:census``."""

import gc
import json
import os
from collections import Counter
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.web.http import HTTPChannel, Request as HTTPRequest

from lhttp_tx import Request, processor
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.session import Session
from lhttp_tx.transports.websocket.protocol import LHTTPServerProtocol

COUNTED = (Engine, LHTTPServerProtocol, Session, HTTPChannel, HTTPRequest, Deferred)


@processor("census")
def census(request: Request) -> None:
    """Answer with JSON: open files, resident bytes, channels, and objects by class in ``COUNTED``, collected first."""
    gc.unfreeze()  # the server has frozen what it had loaded when it started
    gc.collect()
    found = gc.get_objects()
    counts = Counter(counted.__name__ for kind in map(type, found) for counted in COUNTED if issubclass(kind, counted))
    channels = [name for engine in found if type(engine) is Engine for name in engine.hub.channels]
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    files = len(list(Path("/proc/self/fd").iterdir()))
    request.reply(json.dumps({"files": files, "resident": resident, "channels": channels, "objects": counts}))
