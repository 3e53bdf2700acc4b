"""
Chat rooms in which the server says who is speaking.

A client logs in with the command ``login`` and its name as the body. From then on each ``chat`` message that it
publishes reaches the room with a ``from`` header that the client cannot forge. Chat without names needs no processor,
because the server itself publishes and subscribes.

Start a server with it::

    twistd -n lhttp --port 8081 --processor examples/chat.py:Login --processor examples/chat.py:Chat

and join a room with ``examples/chat_client.py``.
"""

from lhttp_tx import Processor, Refused, Request, Session


class Login(Processor):
    """Gives the connection a name, if nobody else has it at the moment."""

    command = "login"

    def __init__(self) -> None:
        self._names: set[str] = set()

    def on_message(self, request: Request) -> None:
        """Take the name in the body."""
        name = request.text.strip()
        if not name.isalnum():
            raise Refused(400, "a name is made of letters and digits")
        if name in self._names:
            raise Refused(409, "this name is taken")
        self._names.discard(request.session.state.get("name", ""))
        self._names.add(name)
        request.session.state["name"] = name
        request.reply(f"welcome {name}", headers=())

    def on_close(self, session: Session) -> None:
        """Free the name."""
        self._names.discard(session.state.get("name", ""))


class Chat(Processor):
    """Adds the sender's name to the messages that it publishes."""

    command = "chat"

    def on_message(self, request: Request) -> None:
        """Refuse messages of clients without a name, and add the name to all others."""
        if "publish" not in request.headers:
            return
        name = request.session.state.get("name")
        if name is None:
            raise Refused(401, "log in first")
        headers = request.headers.without({"from", "receipt", "upstream"})
        request.publication = request.message.replace(headers=[*headers, ("from", name)])
