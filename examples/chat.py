"""
Chat rooms in which the server says who is speaking.

A client logs in with the command ``login`` and its name as the body. From then on each ``chat`` message that it
publishes reaches the room with a ``from`` header that the client cannot forge. Chat without names needs no processor
at all: the server publishes and subscribes by itself.

Start a server with it::

    twistd -n lhttp --port 8081 --processor examples/chat.py:Login --processor examples/chat.py:Chat

and join a room with ``examples/chat_client.py``.
"""

from lhttp_tx import Processor, Refused, Request, Session


class Login(Processor):
    """Remembers a name for the connection, if nobody else has it at the moment."""

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
        """Give the name back."""
        self._names.discard(session.state.get("name", ""))


class Chat(Processor):
    """Puts the sender's name on what it publishes."""

    command = "chat"

    def on_message(self, request: Request) -> None:
        """Refuse a stranger's message, stamp everybody else's."""
        if "publish" not in request.headers:
            return
        name = request.session.state.get("name")
        if name is None:
            raise Refused(401, "log in first")
        headers = request.headers.without({"from", "receipt", "upstream"})
        request.publication = request.message.replace(headers=[*headers, ("from", name)])
