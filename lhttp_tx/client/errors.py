"""
The errors of the client, in addition to those of :mod:`lhttp_tx.errors`.

::

    LHTTPError
    ├── ReplyError            any  the server answered with an error
    │   └── NoReply           404  the server has finished a request without a reply
    ├── RequestTimeout        504  the server has not answered in time
    ├── ConnectFailed         503  the client could not connect
    │   └── LoginFailed       any  the server has refused the login, or the client has no credentials
    ├── ConnectionLost        503  the connection ended before the answer came
    │   └── ClientClosed      409  the client was closed, or was never started
    └── TooMany
        └── QueueFull         429  too many messages wait to be sent, or for an answer
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
    """The server answered with an ``error`` message. ``status`` and ``reason`` are the server's."""


class NoReply(ReplyError):
    """
    The server has handled a request without a reply: it has no processor for the command, or the processor did not
    reply.
    """

    status = 404


class RequestTimeout(LHTTPError):
    """The server has not answered within the time limit. It may or may not have handled the request."""

    status = 504


class ConnectFailed(LHTTPError):
    """The client could not reach the server, or the server refused the opening handshake."""

    status = 503


class LoginFailed(ConnectFailed):
    """
    The server has refused a login or has not answered it, or the function for the credentials has failed.

    ``status`` is the server's status, such as 401 for wrong credentials and 409 for those of another user. Without a
    status of the server, it is 404 if the server has no logins, 502 if its answer is not one to a login, 504 if no
    answer came in time, and 503 if the connection ended, or the client's ``login`` or ``headers`` failed.

    :ivar code: the WebSocket close code, if the server has closed the connection instead of answering; else ``None``.
    :ivar unanswered: whether no answer came over the connection. The network may then be the reason.
    """

    code: int | None = None
    unanswered = False


class ConnectionLost(LHTTPError):
    """
    The connection ended before the answer came. The server may or may not have handled the request.

    :ivar code: the WebSocket close code, if the server has closed the connection; else ``None``.
    :ivar retry_after: the seconds within which the server has asked the client to connect again; ``None`` if it has
        not.
    """

    status = 503
    code: int | None = None
    retry_after: float | None = None


class ClientClosed(ConnectionLost):
    """The client is closed or was never started. It sends nothing, and no answers will come."""

    status = 409


class QueueFull(TooMany):
    """Too many messages wait for a connection, for a server that does not read, or for answers."""
