"""Answers the command ``shout`` in capital letters."""

from lhttp_tx import Processor, Request


class Shout(Processor):
    """Answers with the body in capital letters."""

    command = "shout"

    def on_message(self, request: Request) -> None:
        """Reply."""
        request.reply(request.text.upper())
