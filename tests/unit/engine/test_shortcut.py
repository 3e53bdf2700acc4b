"""A filter's shortcut: the same as the way through all steps, without a request for each message."""

from collections.abc import Callable, Iterator

import pytest
from twisted.internet.defer import Deferred
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lhttp_tx import HeaderFilter, Message, Processor, Refused, Request, Session, processor
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Head
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.filters.pubsub import PublishFilter
from lhttp_tx.interfaces import IShortcutFilter, MaybeAwaitable, Shortcut
from lhttp_tx.testing import Client, Server
from lhttp_tx.upstream.filter import UpstreamFilter
from unit.engine.test_hub import SlowBus


@implementer(IShortcutFilter)
class Mark(HeaderFilter):
    """Writes down which way a message took."""

    headers = ("mark",)

    def __init__(self) -> None:
        self.long: list[bytes] = []
        self.short: list[bytes] = []
        self.results: list[MaybeAwaitable | Exception] = []

    def after(self, request: Request) -> None:
        self.long.append(request.body)

    def shortcut(self, head: Head) -> Shortcut | None:
        cut = len(head.raw) + 2

        def mark(session: Session, messages: Iterator[bytes], binary: bool) -> MaybeAwaitable:
            for message in messages:
                self.short.append(message[cut:])
                result = self.results.pop(0) if self.results else None
                if isinstance(result, Exception):
                    raise result
                if result is not None:
                    return result
            return None

        return mark


@processor("command")
def command(request: Request) -> None:
    pass


def marked(*bodies: int | str, headers: str = "mark:\r\n", name: str = "x") -> list[bytes]:
    return [f"LHTTP/1.0 {name}\r\n{headers}\r\n{body}".encode() for body in bodies]


def receive_all(client: Client, messages: list[bytes]) -> int:
    """Hand *messages* to the session until it has enough; return how many it took."""
    taken = 0
    while taken < len(messages) and not client.reading_paused and not client.session.closed:
        taken = client.session.receive_run(messages, taken, False)
    return taken


@pytest.fixture
def mark() -> Mark:
    return Mark()


@pytest.fixture
def client(mark: Mark) -> Client:
    return Server(filters=[mark], processors=[command], limits=Limits(queue_length=3)).connect()


def statuses(client: Client) -> list[str | None]:
    return [message.headers.get("status") for message in client.take()]


def test_the_filter_of_publications_provides_the_interface() -> None:
    assert verifyObject(IShortcutFilter, PublishFilter())


def test_messages_that_a_filter_alone_is_concerned_with_take_its_shortcut(mark: Mark, client: Client) -> None:
    assert receive_all(client, marked(1, 2, 3)) == 3
    client.send(marked(4)[0])
    assert (mark.long, mark.short) == ([], [b"1", b"2", b"3", b"4"])


@pytest.mark.parametrize(
    ("name", "headers"), [("command", "mark:\r\n"), ("x", "mark:\r\nreceipt:1\r\n"), ("x", "mark:\r\npublish:a\r\n")]
)
def test_messages_with_more_to_be_done_take_all_steps(mark: Mark, client: Client, name: str, headers: str) -> None:
    receive_all(client, marked(1, 2, name=name, headers=headers))
    assert (mark.long, mark.short) == ([b"1", b"2"], [])


class Longer(Mark):
    def after(self, request: Request) -> None:
        super().after(request)


class Same(Mark):
    pass


class Before(Mark):
    def before(self, request: Request) -> None:
        pass


@pytest.mark.parametrize(("kind", "short"), [(Longer, False), (Before, False), (Same, True)])
def test_a_filter_that_does_something_else_than_its_parent_does_not_take_its_shortcut(
    kind: type[Mark], short: bool
) -> None:
    mark = kind()
    Server(filters=[mark]).connect().send(marked(1)[0])
    assert (len(mark.short), len(mark.long)) == ((1, 0) if short else (0, 1))


class Counting(PublishFilter):
    count = 0

    def after(self, request: Request) -> MaybeAwaitable:
        self.count += 1
        return super().after(request)


def test_a_filter_in_place_of_the_one_of_publications_sees_every_message() -> None:
    server = Server()
    counting = Counting()
    server.engine.filters = tuple(
        counting if isinstance(found, PublishFilter) else found for found in server.engine.filters
    )
    receive_all(server.connect(), marked(1, 2, headers="publish:a\r\n"))
    assert counting.count == 2


def test_a_filter_may_have_no_shortcut_for_a_head(client: Client, mark: Mark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mark, "shortcut", lambda head: None)
    receive_all(client, marked(1, 2))
    assert mark.long == [b"1", b"2"]


def test_each_message_that_fails_costs_one_error(mark: Mark, client: Client) -> None:
    mark.results = [Refused(409, "no"), None, Refused(403, "no")]
    assert receive_all(client, marked(1, 2, 3, 4)) == 4
    assert mark.short == [b"1", b"2", b"3", b"4"]
    assert statuses(client) == ["409", "403"]


def test_messages_behind_one_that_waits_are_kept_until_the_queue_is_full(mark: Mark, client: Client) -> None:
    waiting: Deferred[None] = Deferred()
    mark.results = [None, waiting]
    assert receive_all(client, marked(*range(10))) == 5
    assert client.reading_paused
    assert mark.short == [b"0", b"1"]
    waiting.callback(None)
    assert mark.short == [b"0", b"1", b"2", b"3", b"4"]
    assert not client.reading_paused


def test_what_is_waited_for_may_fail(mark: Mark, client: Client) -> None:
    waiting: Deferred[None] = Deferred()
    mark.results = [waiting]
    assert receive_all(client, marked(1, 2)) == 2
    waiting.errback(Refused(409, "no"))
    assert statuses(client) == ["409"]
    assert mark.short == [b"1", b"2"]


def test_what_has_fired_is_not_waited_for(mark: Mark, client: Client) -> None:
    fired: Deferred[None] = Deferred()
    fired.callback(None)
    mark.results = [fired]
    assert receive_all(client, marked(*range(10))) == 10
    assert len(mark.short) == 10


def test_a_shortcut_has_the_time_limit_of_its_filter(mark: Mark) -> None:
    mark.timeout = 2.0
    server = Server(filters=[mark])
    client = server.connect()
    mark.results = [Deferred()]
    receive_all(client, marked(1, 2))
    server.clock.advance(2.0)
    assert statuses(client) == ["500"]
    assert mark.short == [b"1", b"2"]


def test_messages_that_wait_take_the_shortcut_too(mark: Mark, client: Client) -> None:
    waiting: Deferred[None] = Deferred()
    mark.results = [waiting]
    for message in marked(1, 2):
        client.send(message)
    waiting.callback(None)
    assert mark.short == [b"1", b"2"]


def test_nothing_is_done_with_messages_behind_the_end(mark: Mark) -> None:
    class Closing(Mark):
        def shortcut(self, head: Head) -> Shortcut | None:
            def close(session: Session, messages: Iterator[bytes], binary: bool) -> None:
                for message in messages:
                    self.short.append(message)
                    session.close(4000, "enough")

            return close

    closing = Closing()
    client = Server(filters=[closing]).connect()
    client.session.receive_run(marked(1, 2, 3), 0, False)
    assert len(closing.short) == 1


def test_a_message_that_a_shortcut_does_not_take_is_passed_over(mark: Mark, client: Client) -> None:
    def lazy(session: Session, messages: Iterator[bytes], binary: bool) -> None:
        pass

    mark.shortcut = lambda head: lazy  # type: ignore[method-assign]
    assert receive_all(client, marked(1, 2, 3)) == 3
    assert client.take() == []


def test_a_shortcut_gets_runs_of_messages_with_one_head(client: Client, mark: Mark) -> None:
    runs: list[int] = []

    def count(session: Session, messages: Iterator[bytes], binary: bool) -> None:
        runs.append(len(list(messages)))

    mark.shortcut = lambda head: count  # type: ignore[method-assign]
    messages = [
        *marked(1, 2, 3),
        *marked(4, 5, headers="mark:other\r\n"),
        *marked(6),
        b"LHTTP/1.0 x\r\n\r\n",
        *marked(7),
    ]
    assert receive_all(client, messages) == 8
    assert runs == [3, 2, 1, 1]


def test_a_message_that_is_too_large_does_not_get_through_in_a_run(mark: Mark) -> None:
    client = Server(filters=[mark], limits=Limits(message_size=100)).connect()
    assert receive_all(client, marked("a", "b", "c" * 100, "d")) == 4
    assert mark.short == [b"a", b"b", b"d"]
    assert statuses(client) == ["413"]


def test_a_malformed_message_between_others_costs_one_error(mark: Mark, client: Client) -> None:
    receive_all(client, [*marked(1, 2), b"LHTTP/1.0", *marked(3, 4)])
    assert mark.short == [b"1", b"2", b"3", b"4"]
    assert statuses(client) == ["400"]


class Within(Processor):
    """Lets something happen while its first message is handled."""

    command = "within"

    def __init__(self) -> None:
        self.events: list[str] = []
        self.happen: Callable[[], object] | None = None

    def on_message(self, request: Request) -> None:
        happen, self.happen = self.happen, None
        if happen is not None:
            happen()
        self.events.append(request.text)

    def on_close(self, session: Session) -> None:
        self.events.append("close")


def test_a_message_that_comes_while_another_is_handled_is_handled_behind_it() -> None:
    within = Within()
    client = Server(processors=[within]).connect()
    within.happen = lambda: client.session.receive(marked("inner", name="within")[0], False)
    receive_all(client, marked("outer", name="within"))
    assert within.events == ["outer", "inner"]


def test_an_end_that_comes_while_a_message_is_handled_is_told_behind_it() -> None:
    within = Within()
    client = Server(processors=[within]).connect()
    within.happen = client.disconnect
    receive_all(client, marked("last", name="within"))
    assert within.events == ["last", "close"]


def test_a_server_that_goes_away_while_a_message_is_handled_closes_behind_it() -> None:
    within = Within()
    server = Server(processors=[within])
    client = server.connect()
    within.happen = lambda: server.engine.drain(3)
    receive_all(client, marked("last", name="within"))
    assert within.events == ["last", "close"]
    assert client.close_code == 1001


# Publications


def publications(server: Server, messages: list[bytes]) -> list[Message]:
    subscriber = server.connect()
    subscriber.send("LHTTP/1.0 x\r\nsubscribe:a b\r\n\r\n")
    receive_all(server.connect(), messages)
    return subscriber.take()


def test_publications_of_a_run_arrive_in_order() -> None:
    messages = [
        *marked(1, 2, headers="publish:a\r\n"),
        *marked(3, headers="publish:b\r\n"),
        *marked(4, headers="publish:a\r\n"),
    ]
    assert [message.raw for message in publications(Server(), messages)] == messages


def test_publications_of_a_run_to_two_channels_arrive_twice() -> None:
    messages = marked(1, 2, headers="publish:a b\r\n")
    assert [message.body for message in publications(Server(), messages)] == [b"1", b"1", b"2", b"2"]


@pytest.mark.parametrize("header", ["upstream:POST http://a.example/\r\n", "Upstream: x\r\n"])
def test_headers_for_the_server_alone_are_taken_out_on_the_shortcut(header: str) -> None:
    server = Server()
    filters = server.engine.filters
    server.engine.filters = tuple(found for found in filters if not isinstance(found, UpstreamFilter))
    taken = publications(server, marked(1, 2, "", headers=f"publish:a\r\n{header}"))
    assert taken == [Message("x", {"publish": "a"}, body) for body in ("1", "2", "")]


def test_a_publication_without_a_blank_line_arrives_as_it_was() -> None:
    bare = [b"LHTTP/1.0 x\r\npublish:a\r\n"] * 2
    assert [message.raw for message in publications(Server(), bare)] == bare


def test_each_publication_that_the_bus_refuses_costs_one_error() -> None:
    bus = MemoryBus()
    client = Server(bus=bus).connect()
    bus.stop()
    receive_all(client, marked(1, 2, 3, headers="publish:a\r\n"))
    assert statuses(client) == ["503"] * 3


def test_a_publication_waits_until_the_bus_has_taken_the_one_before_it() -> None:
    bus = SlowBus()
    client = Server(bus=bus).connect()
    receive_all(client, marked(1, 2, headers="publish:a\r\n"))
    assert len(bus.pending) == 1
    bus.pending[0].callback(None)
    assert len(bus.pending) == 2


def test_a_publication_that_the_bus_loses_costs_one_error() -> None:
    bus = SlowBus()
    client = Server(bus=bus).connect()
    receive_all(client, marked(1, 2, headers="publish:a\r\n"))
    bus.pending[0].errback(BusUnavailable("away"))
    bus.pending[1].callback(None)
    assert statuses(client) == ["503"]
