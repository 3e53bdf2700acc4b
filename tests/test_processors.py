"""Processors and their registry."""

import pytest
from zope.interface.verify import verifyObject

from lhttp_tx import HeaderFilter, Processor, Registry, Request, processor
from lhttp_tx.interfaces import IHeaderFilter, IProcessor


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
