"""
All errors that the project raises on purpose, in one tree.

Every module may import this one. It imports nothing of the project. :exc:`StartFailed` is not in the tree, because no
client ever gets it.

::

    LHTTPError                     status, reason
    ├── LocalProtocolError         our side made something that would change when parsed
    ├── RemoteProtocolError        400  the peer sent something malformed
    │   └── MessageTooLarge        413
    ├── Refused                    any  a processor or filter says no
    ├── Muted                      403  the client may not publish for some time
    ├── TooMany                    429  a bound was reached
    ├── ProcessorTimeout           500
    ├── BusUnavailable             503
    │   ├── ChannelsRefused        503
    │   └── HistoryUnavailable     503
    ├── SessionClosed              409
    └── UpstreamError              502
        ├── UpstreamForbidden      403
        ├── UpstreamBusy           503
        ├── UpstreamDown           503
        └── UpstreamTimeout        504
"""

__all__ = [
    "BusUnavailable",
    "ChannelsRefused",
    "HistoryUnavailable",
    "LHTTPError",
    "LocalProtocolError",
    "MessageTooLarge",
    "Muted",
    "ProcessorTimeout",
    "Refused",
    "RemoteProtocolError",
    "SessionClosed",
    "StartFailed",
    "TooMany",
    "UpstreamBusy",
    "UpstreamDown",
    "UpstreamError",
    "UpstreamForbidden",
    "UpstreamTimeout",
]


class LHTTPError(Exception):
    """
    An error that the server may report to a client, as an ``error`` message.

    :ivar status: the status code of the protocol, section "Errors and receipts".
    :ivar reason: one line of text for the client. It never holds a traceback or a secret.
    """

    status = 500

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        """
        :param reason: one line of text for the client.
        :param status: overrides the status of the class, 100 to 599.
        :raises ValueError: if *status* is out of these bounds, or is not an integer.
        """
        super().__init__(reason)
        self.reason = reason
        if status is not None:
            if not isinstance(status, int) or not 100 <= status <= 599:
                raise ValueError(f"{status!r} is no status")
            self.status = int(status)


class LocalProtocolError(LHTTPError):
    """Code of this side made a message that would change when it is parsed, or used a malformed channel name."""


class RemoteProtocolError(LHTTPError):
    """The peer sent something that the grammar does not allow."""

    status = 400


class MessageTooLarge(RemoteProtocolError):
    """The peer sent a message, or a head, that is larger than its limit."""

    status = 413


class Refused(LHTTPError):
    """
    Raised by a processor or a filter to answer a message with an error of its choice.

    >>> raise Refused(403, "members only")
    Traceback (most recent call last):
        ...
    lhttp_tx.errors.Refused: members only
    """

    def __init__(self, status: int, reason: str) -> None:
        """
        :param status: the status that the client gets, 400 to 599.
        :param reason: one line of text for the client.
        :raises ValueError: if *status* is anything else, because other numbers do not mean a refusal.
        """
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise ValueError(f"{status!r} is no status of a refusal: use 400 to 599")
        super().__init__(reason, status=status)


class Muted(LHTTPError):
    """
    The client may not publish for some time, because an operator or a moderator has muted it.

    The server does not close a connection after many of these errors in a row.
    """

    status = 403


class TooMany(LHTTPError):
    """A client reached a limit."""

    status = 429


class ProcessorTimeout(LHTTPError):
    """A processor or filter did not finish within its time limit and was cancelled."""

    status = 500


class BusUnavailable(LHTTPError):
    """The bus cannot take a publication or a subscription at the moment."""

    status = 503


class ChannelsRefused(BusUnavailable):
    """
    The bus has refused publications to some channels. It has all others.

    :ivar channels: the names of these channels.
    """

    def __init__(self, channels: frozenset[str]) -> None:
        super().__init__("the bus does not allow this channel")
        self.channels = channels


class HistoryUnavailable(BusUnavailable):
    """The history store cannot take a publication, or cannot be read, at the moment."""


class SessionClosed(LHTTPError):
    """Code asked a session to subscribe after the session's connection had ended."""

    status = 409


class StartFailed(Exception):
    """
    The server does not run: the history store did not open, or the ``on_start`` of a processor, a filter, a hook or an
    authenticator failed.

    An ``on_start`` may raise it: then the log has only its text, which says what to do, and no traceback.
    """


class UpstreamError(LHTTPError):
    """The backend could not be reached, or gave no usable answer."""

    status = 502


class UpstreamForbidden(UpstreamError):
    """The operator did not allow this target, or its address."""

    status = 403


class UpstreamBusy(UpstreamError):
    """The number of requests under way to backends has reached its limit."""

    status = 503


class UpstreamDown(UpstreamError):
    """The backend failed several times in a row. The server does not call it for a while."""

    status = 503


class UpstreamTimeout(UpstreamError):
    """The backend did not answer within the time limit."""

    status = 504
