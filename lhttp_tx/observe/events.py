"""
The names of events in the log, for programs that read it.

The text of a line may change, but its name does not. A call of a logger may pass the name as ``event=``. For other
calls, ``NAMES`` maps the format of the text to the name. Imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["NAMES", "OTHER", "name_of"]

OTHER: Final = "other"
"""The name of events that have none: of libraries, and of users' code."""

NAMES: Final[Mapping[str, str]] = {
    "listening on {address} ({description})": "server.listening",
    "cannot listen on {description}: {why}": "server.cannot_listen",
    "cannot start: {error}": "server.cannot_start",
    "stopping: serving for {seconds:g} s more": "server.delaying",
    "the process that took over has ended before it served: serving again": "server.resumed",
    "closing {count} connections within {seconds:g} s": "server.draining",
    "closing {count} connections": "server.closing",
    "the reactor runs again after {seconds:.1f} s": "reactor.resumed",
    "{name} again: closing all connections now": "server.hurried",
    "SIGUSR1: {told}": "log.reopened",
    "SIGHUP: there is no configuration file to read again": "reload.nothing",
    "SIGUSR1: still writing to the old file: {error}": "log.not_reopened",
    "{path}: active channel rules: {count}": "reload.rules",
    "{path}: commands with default headers: {count}": "reload.default_headers",
    "{path}: not applied, the old channel rules stay active": "reload.refused",
    "{path}: restart the server to apply these options: {names}": "reload.restart_needed",
    "{peer}: login refused: {reason!r}": "login.refused",
    "{peer}: handshake refused with {code}: {reason!r}": "handshake.refused",
    "{peer}: closed, its credentials have expired": "login.expired",
    "{peer}: closed after {count} errors in a row": "connection.too_many_errors",
    "{peer}: closed, it does not read: {size} bytes unsent": "connection.too_slow",
    "{peer}: closed, its user has logged in elsewhere": "connection.replaced",
    "{peer}: a processor or filter failed": "processor.failed",
    "refusing connections: {why}; raise the limit on open files (ulimit -n, LimitNOFILE)": "accept.refusing",
    "refusing connections, such as that of {peer}: {why}": "accept.refusing",
    "accepting connections again; none was refused for {seconds:g} s": "accept.resumed",
    "no connection was refused for {seconds:g} s": "accept.resumed",
    "connected to NATS at {url}": "nats.connected",
    "cannot reach NATS, retrying: {why}": "nats.unreachable",
    "lost NATS, publications are {told} until it is back: {reason}": "nats.lost",
    "NATS at {url} is stopping, moving to another server": "nats.moving",
    "NATS forbids this node to {verb} {subject!r}{others}": "nats.forbidden",
    "messages from NATS were dropped: more arrived than this node can handle": "nats.overrun",
    "node {name} {what}": "node.joined",
    "node {name} has left": "node.left",
    "{trouble}; trying again, publications with history are refused until then": "history.failed",
    "the history {path} can be written again": "history.resumed",
    "no history in stream {name}: {why}": "history.failed",
    "the stream {name} works": "history.resumed",
    "upstream {backend} works again": "upstream.resumed",
    "worker {number} died, restarting in {wait:g} s: {why}": "worker.died",
    "worker {number} hangs: no heartbeat for {seconds:g} s. Its process {pid} is {state}"
    " and used {cpu} s of CPU time meanwhile. It is killed and replaced": "worker.hangs",
    "starting {count} workers": "worker.starting",
    "{count} more within {seconds:g} s, the last: {last}": "log.left_out",
    "{count} lines of other kinds within {seconds:g} s, the last: {last}": "log.left_out",
}
"""Names by format."""


def name_of(event: Mapping[str, Any]) -> str:
    """
    Return the name of an event of Twisted's log.

    >>> name_of({"log_format": "node {name} has left", "name": "a"})
    'node.left'
    """
    given = event.get("event")
    if isinstance(given, str):
        return given
    return NAMES.get(event.get("log_format") or "", OTHER)
