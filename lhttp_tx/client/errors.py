"""
What can go wrong for a client, besides what :mod:`lhttp_tx.errors` names.

::

    LHTTPError
    ├── ReplyError            any  the server answered with an error
    │   └── NoReply           404  the server is done with a request and has not replied
    ├── RequestTimeout        504  the server has not answered in time
    ├── ConnectFailed         503  no connection came about
    │   └── LoginFailed       any  the server does not take who we say we are, or nobody said who
    ├── ConnectionLost        503  the connection ended before the answer came
    │   └── ClientClosed      409  the client was closed, or was never started
    └── TooMany
        └── QueueFull         429  too much waits to be sent, or to be answered
"""

from lhttp_tx.errors import LHTTPError, TooMany

__all__ = [
    "ClientClosed",
    "ConnectFailed",
    "ConnectionLost",
    "LoginFailed",
    "NoReply",
    "QueueFull",
    "ReplyError",
    "RequestTimeout",
]


class ReplyError(LHTTPError):
    """The server answered with an ``error`` message; ``status`` and ``reason`` are what it said."""


class NoReply(ReplyError):
    """The server is done with a request and no reply came: it has no processor for the command, or that kept silent."""

    status = 404


class RequestTimeout(LHTTPError):
    """The server has not answered within the time limit. Whether it has done what was asked is not known."""

    status = 504


class ConnectFailed(LHTTPError):
    """The server was not reached, or refused the opening handshake."""

    status = 503


class LoginFailed(ConnectFailed):
    """
    The server has refused a login or has not answered it, or what gives the credentials has failed.

    ``status`` is what the server said, such as 401 for wrong credentials and 409 for those of another user. Where it
    said nothing of the kind: 404 if it asks nobody who they are, 502 if what came is no answer to a login, 504 if there
    was none in time, 503 if the connection ended or the client's ``login`` or ``headers`` failed.

    :ivar code: the WebSocket close code, if the server closed the connection instead of answering.
    """

    code: int | None = None


class ConnectionLost(LHTTPError):
    """
    The connection ended before the answer came. Whether the server has done what was asked is not known.

    :ivar code: the WebSocket close code, if the server closed it.
    """

    status = 503
    code: int | None = None


class ClientClosed(ConnectionLost):
    """The client is closed: nothing is sent, and nothing will be answered."""

    status = 409


class QueueFull(TooMany):
    """As much as allowed waits already: for a connection, for a server that does not read, or for answers."""
