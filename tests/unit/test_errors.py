"""lhttp_tx.errors: the tree, and what clients are told."""

import re
from http import HTTPStatus
from typing import Any

import pytest

from lhttp_tx import errors
from lhttp_tx.errors import ChannelsRefused, LHTTPError, LocalProtocolError, Refused, RemoteProtocolError, TooMany

_BRANCH = re.compile(r"(?P<indent>[ │]*(?:[├└]── )?)(?P<name>\w+)(?: +(?P<status>\d{3}|any)\b)?.*")


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Return the tree in the docstring: name -> (name of the parent, status as drawn)."""
    drawing = (errors.__doc__ or "").split("::\n\n", 1)[1]
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[tuple[int, str]] = []
    for line in drawing.rstrip().splitlines():
        branch = _BRANCH.fullmatch(line)
        assert branch is not None, line
        column = len(branch["indent"])
        while path and path[-1][0] >= column:
            path.pop()
        tree[branch["name"]] = (path[-1][1] if path else None, branch["status"])
        path.append((column, branch["name"]))
    return tree


def classes() -> list[type[LHTTPError]]:
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, LHTTPError)]
    assert found
    return found


def test_drawn_tree_has_every_class_below_its_parent() -> None:
    parents = {name: parent for name, (parent, _) in drawn().items()}
    expected = {kind.__name__: kind.__bases__[0].__name__ if kind is not LHTTPError else None for kind in classes()}
    assert parents == expected


def test_drawn_statuses_are_those_of_the_classes() -> None:
    numbers = {name: int(status) for name, (_, status) in drawn().items() if status not in (None, "any")}
    expected = {kind.__name__: kind.status for kind in classes()}
    assert numbers == {name: expected[name] for name in numbers}


def test_classes_without_a_drawn_status_are_not_the_peers_fault() -> None:
    without = {name for name, (_, status) in drawn().items() if status is None}
    assert without == {"LHTTPError", "LocalProtocolError"}
    assert LHTTPError.status == LocalProtocolError.status == 500


def test_every_class_is_public() -> None:
    assert sorted(errors.__all__) == errors.__all__
    assert set(errors.__all__) == {kind.__name__ for kind in classes()} | {"StartFailed"}


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_status_is_one_of_the_protocol(kind: type[LHTTPError]) -> None:
    assert kind.status in {400, 401, 403, 404, 409, 413, 429, 500, 502, 503, 504}


@pytest.mark.parametrize(
    "kind", [kind for kind in classes() if kind not in (ChannelsRefused, Refused)], ids=lambda kind: kind.__name__
)
def test_reason_is_the_text(kind: type[LHTTPError]) -> None:
    error = kind("why")
    assert (error.reason, str(error), error.status) == ("why", "why", kind.status)


def test_status_of_one_error_can_be_another() -> None:
    assert RemoteProtocolError("why", status=403).status == 403
    assert RemoteProtocolError.status == 400


def test_refused_has_the_status_that_was_chosen() -> None:
    error = Refused(403, "members only")
    assert (error.status, error.reason, str(error)) == (403, "members only", "members only")


def test_a_status_may_be_one_of_an_enumeration() -> None:
    assert str(Refused(HTTPStatus.FORBIDDEN, "members only").status) == "403"


@pytest.mark.parametrize("status", [42, 200, 399, 600, "403", None, 403.0])
def test_a_refusal_with_another_status_is_a_mistake(status: Any) -> None:
    with pytest.raises(ValueError, match="is no status of a refusal: use 400 to 599"):
        Refused(status, "no")


@pytest.mark.parametrize("status", [42, 99, 600, "403"])
def test_no_error_has_a_status_that_is_none(status: Any) -> None:
    with pytest.raises(ValueError, match="is no status"):
        LHTTPError("no", status=status)


def test_one_handler_catches_all_of_them() -> None:
    with pytest.raises(LHTTPError, match="too many"):
        raise TooMany("too many")
