"""
A client for LHTTP servers on Twisted. Programs and the ``lhttp`` command use it.

>>> from twisted.internet import reactor
>>> from lhttp_tx.client import Client
>>> Client("ws://127.0.0.1:8081/", reactor=reactor)
<Client ws://127.0.0.1:8081/ idle>

Everything that programs need is in this module. The client shares only the codec with the server.
"""

from lhttp_tx.client.client import Client, State
from lhttp_tx.client.credentials import HeaderSource
from lhttp_tx.client.errors import (
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    LoginFailed,
    NoReply,
    QueueFull,
    ReplyError,
    RequestTimeout,
)
from lhttp_tx.client.multipart import multipart_message, parts_of
from lhttp_tx.client.positions import FilePositions, PositionStore
from lhttp_tx.client.presence import Person, Presence, PresenceChange
from lhttp_tx.client.registry import MissedCallback, RecoveredCallback
from lhttp_tx.client.results import HistoryPage, Published
from lhttp_tx.client.subscription import Subscription
from lhttp_tx.codec.headers import Headers
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.multipart import Part

__all__ = [
    "Client",
    "ClientClosed",
    "ConnectFailed",
    "ConnectionLost",
    "FilePositions",
    "HeaderSource",
    "Headers",
    "HistoryPage",
    "LoginFailed",
    "Message",
    "MissedCallback",
    "NoReply",
    "Part",
    "Person",
    "PositionStore",
    "Presence",
    "PresenceChange",
    "Published",
    "QueueFull",
    "RecoveredCallback",
    "ReplyError",
    "RequestTimeout",
    "State",
    "Subscription",
    "multipart_message",
    "parts_of",
]
