"""The processors that the exchanges in ``exchanges.json`` were written for."""

from lhttp_tx import Request, processor

__all__ = ["auth", "echo", "upload"]


@processor("echo")
def echo(request: Request) -> None:
    """Send the message back as it is."""
    request.reply()


@processor("upload")
def upload(request: Request) -> None:
    """Send each part back as a message of its own."""
    for part in request.parts:
        request.reply(part.body, command="part", headers=part.headers)


@processor("chat")
def auth(request: Request) -> None:
    """Send the body back with another command and other headers."""
    request.reply(command="auth", headers=[("content-type", "image/png")])
