"""
Every error the project raises on purpose, in one tree.

Anybody may import this module; it imports nothing of the project.

::

    LHTTPError                     status, reason
    ├── LocalProtocolError         our side built something that would not parse back the same
    ├── RemoteProtocolError        400  the peer sent something malformed
    │   └── MessageTooLarge        413
    ├── Refused                    any  a processor or filter says no
    ├── TooMany                    429  a bound was reached
    ├── ProcessorTimeout           500
    ├── BusUnavailable             503
    ├── SessionClosed              409
    └── UpstreamError              502
        ├── UpstreamForbidden      403
        ├── UpstreamBusy           503
        ├── UpstreamDown           503
        └── UpstreamTimeout        504
"""

__all__ = [
    "BusUnavailable",
    "LHTTPError",
    "LocalProtocolError",
    "MessageTooLarge",
    "ProcessorTimeout",
    "Refused",
    "RemoteProtocolError",
    "SessionClosed",
    "TooMany",
    "UpstreamBusy",
    "UpstreamDown",
    "UpstreamError",
    "UpstreamForbidden",
    "UpstreamTimeout",
]


class LHTTPError(Exception):
    """
    Something that a client may be told of, as an ``error`` message.

    :ivar status: the status code of the protocol, section "Errors and receipts".
    :ivar reason: one line of text for the client. It never holds a traceback or a secret.
    """

    status = 500

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        """
        :param reason: one line of text for the client.
        :param status: overrides the status of the class, 100 to 599.
        """
        super().__init__(reason)
        self.reason = reason
        if status is not None:
            self.status = status


class LocalProtocolError(LHTTPError):
    """Our side was asked to build a message, head or part that would not parse back the same."""


class RemoteProtocolError(LHTTPError):
    """The peer sent something that the grammar does not allow."""

    status = 400


class MessageTooLarge(RemoteProtocolError):
    """The peer sent a message, or a head, that passes its limit."""

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
        :param status: the status that the client is told, 400 to 599.
        :param reason: one line of text for the client.
        """
        super().__init__(reason, status=status)


class TooMany(LHTTPError):
    """A bound on what one client may hold or send was reached."""

    status = 429


class ProcessorTimeout(LHTTPError):
    """A processor or filter did not finish within its time limit and was cancelled."""

    status = 500


class BusUnavailable(LHTTPError):
    """The bus cannot take a publication or a subscription at the moment."""

    status = 503


class SessionClosed(LHTTPError):
    """A session was asked to subscribe after its connection had ended."""

    status = 409


class UpstreamError(LHTTPError):
    """The backend could not be reached, or gave no usable answer."""

    status = 502


class UpstreamForbidden(UpstreamError):
    """The operator did not allow this target, or its address."""

    status = 403


class UpstreamBusy(UpstreamError):
    """As many requests as allowed are on their way to backends already."""

    status = 503


class UpstreamDown(UpstreamError):
    """The backend failed several times in a row and is left alone for a while."""

    status = 503


class UpstreamTimeout(UpstreamError):
    """The backend did not answer within the time limit."""

    status = 504
