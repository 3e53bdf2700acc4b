"""
LHTTP, an HTTP-like text protocol over WebSocket, as a Twisted server.

What users need is here; the reference in docs/ describes the rest.
"""

from lhttp_tx.auth import Authenticator
from lhttp_tx.client.publisher import PublishFailed, post_message
from lhttp_tx.codec.headers import Headers
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.codec.multipart import Part, join_parts
from lhttp_tx.engine.processors import Processor, Registry, processor
from lhttp_tx.engine.request import Request
from lhttp_tx.engine.session import Session
from lhttp_tx.errors import LHTTPError, Refused
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.hooks import Hooks
from lhttp_tx.identity import Identity
from lhttp_tx.running import publish

__all__ = [
    "Authenticator",
    "HeaderFilter",
    "Headers",
    "Hooks",
    "Identity",
    "LHTTPError",
    "Message",
    "Part",
    "Processor",
    "PublishFailed",
    "Refused",
    "Registry",
    "Request",
    "Session",
    "__version__",
    "join_parts",
    "parse",
    "post_message",
    "processor",
    "publish",
]

__version__ = "0.1.0"
