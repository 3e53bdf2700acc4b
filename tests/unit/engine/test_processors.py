"""Processors and their registry."""

from functools import partial

import pytest
from twisted.internet.defer import Deferred, succeed
from zope.interface.verify import verifyObject

from lhttp_tx import HeaderFilter, Message, Processor, Registry, Request, processor
from lhttp_tx.interfaces import IHeaderFilter, IProcessor
from lhttp_tx.testing import Server


@processor("echo", timeout=3)
def echo(request: Request) -> None:
    """Answer with the message itself."""
    request.reply()


def named(command: str) -> Processor:
    found = Processor()
    found.command = command
    return found


def test_the_base_class_provides_the_interface() -> None:
    assert verifyObject(IProcessor, named("x"))


def test_the_filter_base_class_provides_the_interface() -> None:
    assert verifyObject(IHeaderFilter, HeaderFilter())


def test_a_decorated_function_is_a_processor() -> None:
    assert verifyObject(IProcessor, echo)
    assert (echo.command, echo.timeout) == ("echo", 3)
    assert (echo.__name__, echo.__doc__) == ("echo", "Answer with the message itself.")


def test_a_decorated_function_can_still_be_called() -> None:
    @processor("count")
    def count(request: Request) -> Deferred[int]:
        return succeed(len(request.text))

    client = Server().connect()
    request = Request(client.session, Message("count", body="four"))
    assert count(request).result == 4
    echo(request)
    assert client.take() == [Message("count", body="four")]


class Desk:
    """A class whose methods are processors."""

    def __init__(self, name: str) -> None:
        self.name = name

    @processor("open", timeout=2, trusted=True)
    def open(self, request: Request) -> None:
        """Say who is there."""
        request.reply(self.name)

    @processor("close")
    async def close(self, request: Request) -> None:
        request.reply(f"{self.name} goes")

    @staticmethod
    @processor("status")
    def status(request: Request) -> None:
        request.reply("fine")


def test_methods_are_processors_of_each_instance() -> None:
    first, second = Desk("jack"), Desk("jill")
    assert verifyObject(IProcessor, first.open)
    assert (first.open.command, first.open.timeout, first.open.trusted) == ("open", 2, True)
    assert first.open.__doc__ == "Say who is there."
    answers = []
    for desk in (first, second):
        client = Server(processors=[desk.open, desk.close, Desk.status]).connect()
        for command in ("open", "close", "status"):
            client.send(Message(command))
        answers += [message.text for message in client.take()]
    assert answers == ["jack", "jack goes", "fine", "jill", "jill goes", "fine"]


def test_a_decorated_method_can_still_be_called() -> None:
    desk, client = Desk("jack"), Server().connect()
    request = Request(client.session, Message("x"))
    desk.open(request)
    Desk.open(desk, request)
    assert [message.text for message in client.take()] == ["jack", "jack"]


def test_a_method_without_its_instance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"<method Desk\.open that is a processor of each instance>: pass that of an"):
        Registry().add(Desk.open)  # type: ignore[arg-type]


def test_what_has_no_name_can_be_decorated() -> None:
    found: list[Request] = []
    decorated = processor("x")(partial(lambda kept, request: kept.append(request), found))
    assert "without a name" in repr(decorated)
    decorated(Request(Server().connect().session, Message("x")))
    assert len(found) == 1


def test_a_registry_finds_processors_by_their_command() -> None:
    registry = Registry()
    registry.add(echo)
    assert registry.get("echo") is echo
    assert registry.get("ECHO") is None
    assert list(registry) == [echo]
    assert len(registry) == 1


def test_two_processors_cannot_have_one_command() -> None:
    registry = Registry()
    registry.add(named("x"))
    with pytest.raises(ValueError, match="'x' has a processor already"):
        registry.add(named("x"))


@pytest.mark.parametrize("command", ["", "a b", "é", "x" * 65, "a\n"])
def test_a_processor_must_have_a_command_that_can_be_sent(command: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        Registry().add(named(command))


def test_registries_do_not_share_processors() -> None:
    first, second = Registry(), Registry()
    first.add(echo)
    assert second.get("echo") is None
