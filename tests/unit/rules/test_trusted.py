"""Rules and hooks judge what is done, whoever wrote it into the message; code that may do more says so."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx import HeaderFilter, Hooks, Message, Processor, Refused, Request, Session, processor
from lhttp_tx.rules.model import AUTHENTICATED, NOBODY, Rule, Rules
from lhttp_tx.testing import Client, Server
from lhttp_tx.upstream.client import UpstreamClient
from lhttp_tx.upstream.filter import UpstreamFilter
from lhttp_tx.upstream.targets import TargetPolicy

RULES = Rules([Rule(match="closed", subscribe=NOBODY, publish=NOBODY), Rule(match="few", max_rate=1, max_size=60)])


class Adding:
    """Adds channels to a header of each message but those of the command ``plain``, at once or later."""

    waiting: Deferred[None] | None = None

    def __init__(self, name: str, channels: str, *, trusted: bool = False) -> None:
        self._name = name
        self._channels = channels
        self.trusted = trusted

    def add(self, request: Request) -> Deferred[None] | None:
        if request.command == "plain":
            return None
        if self.waiting is None:
            self._add(None, request)
            return None
        return self.waiting.addCallback(self._add, request)

    def _add(self, _: None, request: Request) -> None:
        found = request.headers.get(self._name)
        channels = self._channels if found is None else f"{found} {self._channels}"
        headers = [*request.headers.without({self._name}), (self._name, channels)]
        request.message = request.message.replace(headers=headers)


class AddingFilter(Adding, HeaderFilter):
    def before(self, request: Request) -> Any:
        return self.add(request)


class AddingHooks(Adding, Hooks):
    def on_message(self, request: Request) -> Any:
        return self.add(request)


class AddingProcessor(Adding, Processor):
    command = "chat"

    def on_message(self, request: Request) -> Any:
        return self.add(request)


def make(code: Adding, rules: Rules | None = RULES, **options: Any) -> Server:
    """Return a server with *code*, whatever it is."""
    if isinstance(code, HeaderFilter):
        options["filters"] = [code, *options.get("filters", ())]
    elif isinstance(code, Hooks):
        options["hooks"] = [code, *options.get("hooks", ())]
    else:
        options["processors"] = [code]
    return Server(rules=rules, **options)


def told(client: Client) -> list[tuple[str | None, str | None]]:
    return [(message.headers.get("status"), message.headers.get("reason")) for message in client.take()]


def listening(server: Server, *channels: str) -> Client:
    client = server.connect()
    client.session.subscribe(channels)
    return client


KINDS = pytest.mark.parametrize("kind", [AddingFilter, AddingHooks, AddingProcessor])
"""Who may replace a message."""

ASKED = pytest.mark.parametrize("asked", [{}, {"subscribe": "open", "publish": "open"}], ids=["nothing", "something"])
"""What the client has asked for itself: a step of the rules is there with it, or not."""


@KINDS
@ASKED
@pytest.mark.parametrize("later", [False, True])
def test_a_forbidden_channel_is_refused_whoever_wrote_it(kind: Any, asked: dict[str, str], later: bool) -> None:
    for name in ("subscribe", "publish"):
        if kind is AddingProcessor and name not in asked:
            continue  # a header that was not there when it was decided what to do has no effect
        code = kind(name, "closed")
        code.waiting = Deferred() if later else None
        server = make(code)
        listener, client = listening(server, "closed"), server.connect()
        client.send(Message("chat", asked))
        if code.waiting is not None:
            code.waiting.callback(None)
        assert [status for status, _ in told(client)] == ["403"]
        assert "closed" not in client.session.channels
        assert listener.take() == []


@KINDS
@pytest.mark.parametrize("later", [False, True])
def test_trusted_code_may_write_any_channel(kind: Any, later: bool) -> None:
    for name in ("subscribe", "publish"):
        code = kind(name, "closed", trusted=True)
        code.waiting = Deferred() if later else None
        server = make(code)
        listener, client = listening(server, "closed"), server.connect()
        client.send(Message("chat", {name: "open"}))
        if code.waiting is not None:
            code.waiting.callback(None)
        assert told(client) == []
        assert client.session.channels == ({"open", "closed"} if name == "subscribe" else frozenset())
        assert len(listener.take()) == (name == "publish")


@KINDS
def test_trusted_code_does_not_open_what_the_client_wrote_itself(kind: Any) -> None:
    for name in ("subscribe", "publish"):
        client = make(kind(name, "closed other", trusted=True)).connect()
        client.send(Message("chat", {name: "closed"}))
        assert [status for status, _ in told(client)] == ["403"]
        assert client.session.channels == frozenset()


@pytest.mark.parametrize("is_first", [False, True])
def test_trust_is_not_contagious(is_first: bool) -> None:
    trusted, other = AddingFilter("subscribe", "a", trusted=True), AddingFilter("subscribe", "closed")
    filters = [trusted, other] if is_first else [other, trusted]
    client = Server(rules=RULES, filters=filters).connect()
    client.send(Message("chat"))
    assert [status for status, _ in told(client)] == ["403"]


def test_several_who_are_trusted_may_add() -> None:
    filters = [AddingFilter("subscribe", name, trusted=True) for name in ("closed", "x")]
    client = Server(rules=Rules([Rule(match=">", subscribe=NOBODY)]), filters=filters).connect()
    client.send(Message("chat"))
    assert client.session.channels == {"closed", "x"}


def test_what_a_filter_takes_away_is_not_judged() -> None:
    class Redirecting(HeaderFilter):
        def before(self, request: Request) -> None:
            request.message = request.message.replace(headers={"subscribe": "open"})

    client = Server(rules=RULES, filters=[Redirecting()]).connect()
    client.send(Message("chat", {"subscribe": "closed"}))
    assert (told(client), client.session.channels) == ([], {"open"})


def test_rates_and_sizes_hold_for_what_is_published() -> None:
    server = make(AddingFilter("publish", "few"))
    listener, client = listening(server, "few"), server.connect()
    for body in ("1", "x" * 60, "3"):
        client.send(Message("chat", body=body))
    assert [message.text for message in listener.take()] == ["1"]
    assert [status for status, _ in told(client)] == ["413", "429"]


def test_a_message_counts_once() -> None:
    server = Server(rules=Rules([Rule(match="few", max_rate=2)]), processors=[AddingProcessor("x", "y")])
    listener, client = listening(server, "few"), server.connect()
    for number in range(3):
        client.send(Message("chat", {"publish": "few"}, str(number)))
    assert [message.text for message in listener.take()] == ["0", "1"]


@pytest.mark.parametrize("kind", [AddingFilter, AddingProcessor])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_hook_is_asked_about_what_is_subscribed_to(kind: Any, is_async: bool) -> None:
    asked: list[str] = []

    class Members(Hooks):
        def before_subscribe(self, session: Session, channel: str) -> Any:
            asked.append(channel)
            if channel == "closed":
                raise Refused(403, "members only")
            return later() if is_async else None

    async def later() -> None:
        pass

    client = make(kind("subscribe", "closed"), None, hooks=[Members()]).connect()
    client.send(Message("chat", {"subscribe": "open"}))
    assert told(client) == [("403", "members only")]
    assert client.session.channels == frozenset()
    client.send(Message("plain", {"subscribe": "open"}))
    assert client.session.channels == {"open"}
    assert asked[-1] == "open"
    client = make(kind("subscribe", "closed", trusted=True), None, hooks=[Members()]).connect()
    client.send(Message("chat", {"subscribe": "open"}))
    assert client.session.channels == {"open", "closed"}


@pytest.mark.parametrize("channel", ["$presence.room", "room.*", "$nodes", "a..b"])
@pytest.mark.parametrize("rules", [None, RULES], ids=["without rules", "with rules"])
def test_a_processor_writes_no_channel_that_there_is_not(
    channel: str, rules: Rules | None, failures: list[Any]
) -> None:
    for name in ("subscribe", "publish", "unsubscribe"):
        if (channel, rules, name) == ("room.*", RULES, "unsubscribe"):
            continue  # where there are rules, there may be such a subscription
        client = make(AddingProcessor(name, channel), rules).connect()
        client.send(Message("chat", {name: "open"}))
        ((status, _),) = told(client)
        assert status in ("500", "404", "403")
        assert client.session.channels == frozenset()


def test_subscriptions_of_trusted_code_stay_when_rights_are_taken_away() -> None:
    rules = Rules([Rule(match="closed", subscribe=NOBODY)])
    server = Server(rules=rules, filters=[AddingFilter("subscribe", "closed", trusted=True)])
    client = server.connect()
    client.send(Message("chat", {"subscribe": "open"}))
    assert client.session.channels == {"open", "closed"}
    server.set_rules(Rules([Rule(match=">", subscribe=AUTHENTICATED)]))
    assert client.session.channels == {"closed"}


def test_a_function_may_be_trusted() -> None:
    @processor("chat", trusted=True)
    def chat(request: Request) -> None:
        request.message = request.message.replace(headers={"subscribe": "closed"})

    client = Server(rules=RULES, processors=[chat]).connect()
    client.send(Message("chat", {"subscribe": "open"}))
    assert client.session.channels == {"closed"}


def test_what_code_asks_for_by_a_call_is_not_judged() -> None:
    @processor("chat")
    def chat(request: Request) -> None:
        request.session.subscribe("closed")
        request.session.publish("closed", "news")

    client = Server(rules=RULES, processors=[chat]).connect()
    client.send(Message("chat"))
    assert [message.command for message in client.take()] == ["news"]


def test_nothing_is_judged_for_a_message_twice() -> None:
    judged: list[str] = []

    class Judge(HeaderFilter):
        headers = ("publish",)

        def judge(self, request: Request) -> None:
            judged.append(request.text)

    server = Server(filters=[Judge()])
    client = server.connect()
    client.send(Message("chat", {"publish": "a"}, "1"))
    client.send(Message("chat", body="2"))
    assert judged == ["1"]


def test_a_target_that_a_processor_has_written_must_be_allowed() -> None:
    policy = TargetPolicy(["http://backend.example/"])
    asked: list[object] = []

    class Backends(UpstreamClient):
        def request(self, *arguments: Any, **options: Any) -> Any:
            asked.append(arguments)
            return Deferred()

    @processor("chat")
    def chat(request: Request) -> None:
        request.message = request.message.replace(headers={"upstream": "GET http://other.example/"})

    backends = Backends(reactor=Clock(), policy=policy)
    client = Server(processors=[chat], filters=[UpstreamFilter(backends, policy)]).connect()
    client.send(Message("chat", {"upstream": "GET http://backend.example/"}))
    assert [status for status, _ in told(client)] == ["403"]
    assert asked == []
