"""
A client for LHTTP servers, on Twisted, for programs and for the ``lhttp`` command.

>>> from twisted.internet import reactor
>>> from lhttp_tx.client import Client
>>> Client("ws://127.0.0.1:8081/", reactor=reactor)
<Client ws://127.0.0.1:8081/ idle>

What programs need is here. It shares the codec with the server and nothing else.
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
from lhttp_tx.client.subscription import Subscription
from lhttp_tx.message import Headers, Message
from lhttp_tx.multipart import Part

__all__ = [
    "Client",
    "ClientClosed",
    "ConnectFailed",
    "ConnectionLost",
    "HeaderSource",
    "Headers",
    "LoginFailed",
    "Message",
    "NoReply",
    "Part",
    "QueueFull",
    "ReplyError",
    "RequestTimeout",
    "State",
    "Subscription",
    "multipart_message",
    "parts_of",
]
