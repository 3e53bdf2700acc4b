"""
The methods of a client that send: messages, publications, requests, and requests for histories.

A part of :class:`lhttp_tx.client.client.Client`, without subscriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from lhttp_tx.client.answers import Answers, Pending
from lhttp_tx.client.arguments import SECONDS, check_callbacks, check_numbers, check_text, check_texts, names_of
from lhttp_tx.client.errors import ConnectionLost, NoReply, RequestTimeout
from lhttp_tx.client.results import HistoryPage, NextPage, Published, history_page, identified, published
from lhttp_tx.client.service import ConnectedService
from lhttp_tx.client.states import State
from lhttp_tx.codec.channels import check_channel
from lhttp_tx.codec.headers import HeaderPairs
from lhttp_tx.codec.message import Message, publication
from lhttp_tx.codec.positions import parse_position
from lhttp_tx.errors import LHTTPError

__all__ = ["RequestingService"]


class RequestingService(ConnectedService):
    """A connected service that sends messages and waits for answers. The subclass makes its parts."""

    timeout: float
    _answers: Answers

    def send(self, message: Message) -> None:
        """
        Send a message without asking for a receipt. If the server refuses the message, ``on_error`` is called.

        :raises QueueFull: if too many messages or bytes wait to be sent.
        :raises ClientClosed: if the client is closed.
        """
        self._uplink.send(message)

    def confirm(self, message: Message, timeout: float | None = None) -> Deferred[Message]:
        """
        Send a message, and wait for the server's receipt.

        :param message: the message. The client adds a ``receipt`` header.
        :param timeout: the most seconds to wait; ``None``: the client's own limit.
        :returns: a Deferred that

            - succeeds with the receipt when everything that the message asks for is done. With an ``upstream`` header,
              the receipt contains the answer of the backend;
            - fails with :exc:`~lhttp_tx.client.errors.ReplyError` if the server refuses the message; or with
              :exc:`~lhttp_tx.client.errors.RequestTimeout`, :exc:`~lhttp_tx.client.errors.ConnectionLost` or
              :exc:`~lhttp_tx.client.errors.QueueFull`.
        """
        return self._answers.ask(message, self._seconds(timeout), None, self._uplink.send)

    def publish(
        self,
        channels: str | Iterable[str],
        command: str,
        headers: HeaderPairs | dict[str, str] = (),
        body: bytes | str = b"",
        *,
        binary: bool = False,
        receipt: bool = True,
        message_id: str | None = None,
        timeout: float | None = None,
    ) -> Deferred[Published]:
        """
        Publish a message.

        A publication with a receipt has a message id. If the connection is lost before the answer, the client sends the
        message again, and a server that already has it does not publish it again. But a processor for its command may
        be called twice.

        :param channels: a channel name, or several.
        :param command: the command of the message.
        :param headers: pairs of name and value, or a dict.
        :param body: the body; a str is sent as UTF-8.
        :param binary: whether to send it as a binary WebSocket message.
        :param receipt: whether to ask for a receipt.
        :param message_id: 1 to 64 visible ASCII characters, unique for this publication. By default, it is random. By
            default, the server does not publish a second message with the same id within two minutes.
        :param timeout: the most seconds to wait for the receipt; ``None``: the client's own limit.
        :returns: a Deferred that

            - succeeds with the result when the server has published the message; without a receipt, when the message
              was sent, or waits for a connection;
            - fails like that of :meth:`confirm`. It fails with :exc:`~lhttp_tx.client.errors.ConnectionLost` only if
              the client could not keep the message for sending it again, or has already sent it too often.
        :raises LocalProtocolError: if the message or the id is malformed.
        :raises RemoteProtocolError: if a channel name is malformed or reserved.
        :raises TypeError: if an argument has a wrong type.
        """
        check_text("command", command)
        check_texts(message_id=message_id)
        names = names_of(channels)
        if receipt or message_id is not None:
            headers, message_id = identified(headers, message_id)
        message = publication(names, command, headers, body, binary=binary)
        if receipt and message_id is not None:
            found = message_id
            asked = self._answers.ask(message, self._seconds(timeout), None, self._uplink.send, keep=True)
            return asked.addCallback(lambda answer: published(answer, found))
        try:
            self._uplink.send(message)
        except LHTTPError as error:
            return fail(error)
        return succeed(Published(message_id))

    def request(
        self,
        message: Message | str,
        headers: HeaderPairs | dict[str, str] = (),
        body: bytes | str = b"",
        *,
        binary: bool = False,
        reply_command: str | None = None,
        timeout: float | None = None,
    ) -> Deferred[Message]:
        """
        Send a message to a processor, and wait for the reply.

        The request asks for a receipt. The reply is the first message with the expected command that comes before this
        receipt, and after the receipts of earlier requests. A server handles the messages of a connection one after
        another. So the reply to another request cannot be taken for it.

        :param message: the message; or its command, with the other arguments of
            :class:`~lhttp_tx.codec.message.Message`.
        :param reply_command: the command of the reply; by default, that of the request.
        :param timeout: the most seconds to wait; ``None``: the client's own limit.
        :returns: a Deferred that

            - succeeds with the reply;
            - fails with :exc:`~lhttp_tx.client.errors.NoReply` if the receipt has come without a reply; otherwise like
              that of :meth:`confirm`.
        :raises LocalProtocolError: if the message is malformed.
        """
        if isinstance(message, str):
            message = Message(message, headers, body, binary=binary)
        command = reply_command or message.command
        return self._answers.ask(message, self._seconds(timeout), command, self._uplink.send)

    def upload(
        self, message: Message, progress: Callable[[int, int], object], timeout: float | None = None
    ) -> Deferred[Message]:
        """
        Send a large message like :meth:`request`, and report the progress.

        The client sends the message in fragments. It sends each when the one before has left this process. Other
        messages wait until all are sent.

        :param progress: called with the number of bytes sent so far, and the size of the message.
        :param timeout: the most seconds for sending and the reply together; ``None``: the client's own limit.
        :returns: a Deferred like that of :meth:`request`; It also fails with
            :exc:`~lhttp_tx.client.errors.ConnectionLost` if there is no connection, or another upload is under way.
        :raises TypeError: if *progress* cannot take these arguments.
        """
        check_callbacks("sent", "size", progress=progress)
        link = self._uplink.link
        if link is None or link.uploading:
            return fail(ConnectionLost("there is no connection, or another upload is on its way"))

        def send(whole: Message, pending: Pending) -> None:
            pending.sent = True
            link.upload(whole, progress)

        return self._answers.ask(message, self._seconds(timeout), message.command, send)

    def history(
        self,
        channel: str,
        *,
        limit: int = 100,
        since: str | None = None,
        before: str | None = None,
        order: Literal["oldest", "newest"] = "oldest",
        timeout: float | None = None,
    ) -> Deferred[HistoryPage]:
        """
        Ask for a part of the history of a channel.

        Without *since* and *before*, the page begins with the oldest message, or with the newest one if *order* is
        ``"newest"``.

        :param channel: a channel that the client may subscribe to.
        :param limit: the most messages, at least 1. The server may return fewer messages than this and than there are.
            Then :attr:`~lhttp_tx.client.results.HistoryPage.more` is true.
        :param since: a position. The page has the messages after it.
        :param before: a position. The page has the newest messages before it.
        :param order: which message comes first.
        :param timeout: the most seconds to wait; ``None``: the client's own limit.
        :returns: a Deferred that

            - succeeds with the page;
            - fails with :exc:`~lhttp_tx.client.errors.NoReply` if the server keeps no history; with a
              :exc:`~lhttp_tx.client.errors.ReplyError` of status 404 if this channel has none; otherwise like that of
              :meth:`confirm`.
        :raises ValueError: if *limit* is less than 1, if *since* is used with *before* or ``order="newest"``, or if
            *order* is invalid.
        :raises TypeError: if an argument has a wrong type.
        :raises RemoteProtocolError: if the channel name or a position is malformed.
        """
        check_text("channel", channel)
        check_texts(since=since, before=before)
        check_numbers(limit=limit)
        check_channel(channel)
        if limit < 1:
            raise ValueError(f"a limit of {limit} messages is none")
        if order not in ("oldest", "newest"):
            raise ValueError(f"order {order!r} is neither oldest nor newest")
        if since is not None and (before is not None or order == "newest"):
            raise ValueError("since goes forward: leave out before and order")
        asked: NextPage = {"limit": limit, "order": order}
        if since is not None:
            asked["since"] = since
            parse_position(since)
        if before is not None:
            asked["before"] = before
            parse_position(before)
        headers = {"channel": channel, **{name: str(value) for name, value in asked.items()}}
        if order == "oldest":
            del headers["order"]
        answer = self.request(Message("history", headers), timeout=timeout)
        return answer.addCallbacks(lambda reply: history_page(reply, channel, asked), _without_history)

    def _limited(self, waiting: Deferred[Any], timeout: float | None, what: str) -> Deferred[Any]:
        limited = self._answers.limited(waiting, self._seconds(timeout), what)
        return limited.addErrback(self._with_advice)

    def _with_advice(self, failure: Failure) -> Failure:
        if self.state is State.IDLE and failure.check(RequestTimeout):
            return Failure(
                RequestTimeout(f"{failure.getErrorMessage()}: the client was not started, so call connect()")
            )
        return failure

    def _seconds(self, timeout: float | None) -> float:
        if timeout is None:
            return self.timeout
        SECONDS.check("timeout", timeout)
        return timeout


def _without_history(failure: Failure) -> Failure:
    if failure.check(NoReply):
        return Failure(NoReply("the server keeps no history; it may be started with --history PATTERN"))
    return failure
