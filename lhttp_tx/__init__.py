"""
LHTTP, an HTTP-like text protocol over WebSocket, as a Twisted server.

What users need is here; the reference in docs/ describes the rest.
"""

from lhttp_tx.auth import Authenticator
from lhttp_tx.errors import LHTTPError, Refused
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.hooks import Hooks
from lhttp_tx.identity import Identity
from lhttp_tx.message import Headers, Message, parse
from lhttp_tx.multipart import Part, join_parts
from lhttp_tx.processors import Processor, Registry, processor
from lhttp_tx.publisher import PublishFailed, post_message
from lhttp_tx.request import Request
from lhttp_tx.running import publish
from lhttp_tx.session import Session

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
