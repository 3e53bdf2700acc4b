"""What a filter, a processor or a set of hooks overrides."""

from functools import wraps

import pytest

from lhttp_tx import HeaderFilter, Hooks, Processor
from lhttp_tx.engine.idle import overrides


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (HeaderFilter, ("check", "on_connect", "before", "judge", "after", "on_disconnect")),
        (Processor, ("on_open", "on_message", "on_close")),
        (Hooks, ("on_connect", "on_disconnect", "on_message", "before_subscribe", "on_subscribe", "before_delivery")),
    ],
)
def test_the_methods_of_a_base_class_are_idle(kind: type, names: tuple[str, ...]) -> None:
    assert not any(overrides(kind(), name) for name in names)
    own = type("Own", (kind,), {name: lambda self, *_: None for name in names[:2]})()
    assert [overrides(own, name) for name in names[:3]] == [True, True, False]


def test_a_class_of_ones_own_has_what_it_has() -> None:
    class Own:
        def before(self) -> None:
            pass

    assert (overrides(Own(), "before"), overrides(Own(), "after")) == (True, False)


def test_a_wrapper_of_an_idle_method_is_not_idle() -> None:
    class Own(Hooks):
        @wraps(Hooks.on_connect)
        def on_connect(self, session: object) -> None:
            raise AssertionError

    assert overrides(Own(), "on_connect")
