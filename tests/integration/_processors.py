"""Processors and a filter for ``--processor FILE:NAME`` and ``--filter FILE:NAME``, as a user would write them."""

from collections.abc import Awaitable

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from lhttp_tx import HeaderFilter, Message, Processor, Refused, Request, Session, processor

log = Logger()


@processor("echo")
def echo(request: Request) -> None:
    """Answer at once."""
    request.reply()


@processor("deferred")
def deferred(request: Request) -> Awaitable[None]:
    """Answer by a Deferred."""
    from twisted.internet import reactor

    return deferLater(reactor, 0.05, request.reply)


@processor("coroutine")
async def coroutine(request: Request) -> None:
    """Answer by a coroutine."""
    from twisted.internet import reactor

    await deferLater(reactor, 0.02)
    request.reply()


@processor("boom")
def boom(request: Request) -> None:
    """Fail at once."""
    raise RuntimeError("boom went the processor")


@processor("boom-later")
async def boom_later(request: Request) -> None:
    """Fail after a wait."""
    from twisted.internet import reactor

    await deferLater(reactor, 0.01)
    raise RuntimeError("boom went the coroutine")


@processor("refuse")
def refuse(request: Request) -> None:
    """Say no."""
    raise Refused(409, "the seat is taken")


@processor("wrong")
def wrong(request: Request) -> str:
    """Return what nobody can wait for."""
    return "hello"


@processor("hang")
def hang(request: Request) -> Awaitable[None]:
    """Never finish."""
    return Deferred(lambda _: log.info("hang was cancelled"))


@processor("spin")
def spin(request: Request) -> None:
    """Never let the reactor go on."""
    while True:
        pass


@processor("parts")
def parts(request: Request) -> None:
    """Tell which parts arrived."""
    lines = [f"{dict(part.headers)!r} {part.body!r}" for part in request.parts]
    request.reply("\n".join(lines), headers={})


@processor("other")
def other(request: Request) -> None:
    """Answer with another command and other headers."""
    request.reply(command="auth", headers={"content-type": "image/png"})


@processor("veto")
def veto(request: Request) -> None:
    """Publish nothing."""
    request.publication = None


@processor("rewrite")
def rewrite(request: Request) -> None:
    """Publish something else."""
    request.publication = Message("rewritten", {"by": "processor"}, request.text.upper())


@processor("join")
async def join(request: Request) -> None:
    """Subscribe the sender to the channel in the body, and tell the others there."""
    await request.session.publish(request.text, "joined", body="somebody came")
    await request.session.subscribe(request.text)


@processor("leave")
def leave(request: Request) -> None:
    """Unsubscribe the sender from the channel in the body."""
    request.session.unsubscribe(request.text)


@processor("hang-up")
def hang_up(request: Request) -> None:
    """Close the connection."""
    request.session.close(4000, "bye")


class Visits(Processor):
    """Counts what a connection sends, and tells channel ``visits`` when it begins and ends."""

    command = "visit"

    async def on_open(self, session: Session) -> None:
        """Begin to count."""
        session.state[self] = 0
        await session.publish("visits", "opened")

    def on_message(self, request: Request) -> None:
        """Count."""
        request.session.state[self] += 1
        request.reply(str(request.session.state[self]))

    async def on_close(self, session: Session) -> None:
        """Tell the result."""
        log.info("a visit ended after {count}", count=session.state[self])
        await session.publish("visits", "closed", body=str(session.state[self]))


class Guard(HeaderFilter):
    """Stops messages with a ``secret`` header, before or after the processor."""

    headers = ("secret",)

    def before(self, request: Request) -> None:
        """Refuse."""
        if request.headers.get("secret") == "before":
            raise Refused(403, "no secrets here")

    def after(self, request: Request) -> None:
        """Refuse late."""
        if request.headers.get("secret") == "after":
            raise Refused(403, "too late for secrets")
