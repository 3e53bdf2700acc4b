"""lhttp_tx.web.admin.grpc.serving: calls over gRPC, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("google.protobuf", reason="protobuf is missing (the extra grpc)")
pytest.importorskip("grpc", reason="grpcio is missing (the extra grpc)")

from grpc import StatusCode
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx.errors import BusUnavailable, LocalProtocolError
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.observe.methods import METHODS
from lhttp_tx.web.admin.answering import Answering
from lhttp_tx.web.admin.calls import Calls
from lhttp_tx.web.admin.gate import FAILURES, AdminGate
from lhttp_tx.web.admin.grpc import serving
from lhttp_tx.web.admin.grpc.messages import Messages
from lhttp_tx.web.admin.grpc.serving import MAX_RUNNING, Service
from lhttp_tx.web.admin.keys import AdminKey, Keyring, digest_of
from lhttp_tx.web.admin.problems import Problem
from lhttp_tx.web.admin.proto import SERVICE, rpc_name

SECRET = "secret-of-the-operator"
KEY = (("authorization", f"Bearer {SECRET}"),)
EDITOR = (("authorization", "Bearer secret-of-the-editor"),)
MESSAGES = Messages()


class Aborted(Exception):
    """Ends a call, as the library does."""


class Context:
    """What the library tells of a call."""

    def __init__(self, request: Any = b"", metadata: Any = KEY, peer: str = "ipv4:192.0.2.1:4000") -> None:
        self.request = request
        self.metadata = metadata
        self.at = peer
        self.code: StatusCode | None = None
        self.details = ""
        self.trailing: dict[str, Any] = {}
        self.reads = 0

    def invocation_metadata(self) -> Any:
        return self.metadata

    def peer(self) -> str:
        return self.at

    async def read(self) -> Any:
        self.reads += 1
        return await self.request if isinstance(self.request, Awaitable) else self.request

    async def abort(self, code: StatusCode, details: str, trailing_metadata: Any) -> None:
        self.code, self.details, self.trailing = code, details, dict(trailing_metadata)
        raise Aborted


class Recording(Calls):
    """Calls that answer what a test says."""

    def __init__(self, answer: Callable[[], Any] = dict) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._answer = answer

    async def call(self, name: str, params: Any, key: AdminKey) -> dict[str, Any]:
        self.calls.append((name, dict(params)))
        found = self._answer()
        return await found if isinstance(found, Deferred) else found


class World:
    """A service without a network, with two keys."""

    def __init__(self, answer: Callable[[], Any] = dict) -> None:
        clock = Clock()
        keys = [
            AdminKey("operator", digest_of(SECRET.encode()), frozenset({"*"})),
            AdminKey("editor", digest_of(b"secret-of-the-editor"), frozenset({"publish", "users"}), ("news.>",)),
        ]
        self.calls = Recording(answer)
        gate = AdminGate(Keyring(keys), AccessPolicy(), clock)
        self.service = Service(gate, Answering(self.calls, clock))

    async def take(self, method: str, context: Context) -> bytes | None:
        """Return the answer; ``None`` if the call was ended with an error."""
        handler = self.service.service(type("Details", (), {"method": f"/{SERVICE}/{rpc_name(method)}"}))
        try:
            found: bytes = await handler.stream_unary(None, context)
        except Aborted:
            return None
        return found

    def ask(self, method: str, *arguments: Any, **more: Any) -> tuple[bytes | None, Context]:
        context = Context(*arguments, **more)
        return asyncio.run(self.take(method, context)), context


def request(method: str, **params: Any) -> bytes:
    data: bytes = MESSAGES._requests[method](**params).SerializeToString()
    return data


def problem(context: Context) -> dict[str, Any]:
    status: Any = MESSAGES._status.FromString(context.trailing["grpc-status-details-bin"])
    (detail,) = status.details
    assert detail.type_url == "type.googleapis.com/lhttp.admin.v1.Problem"
    found: Any = MESSAGES._problem.FromString(detail.value)
    assert (status.code, status.message) == (context.code.value[0], found.detail)  # type: ignore[union-attr]
    return {"status": found.status, "title": found.title, "detail": found.detail}


def test_a_call_is_answered() -> None:
    world = World(lambda: {"channels": ["a"], "duplicate": True})
    found, _ = world.ask("publish", request("publish", channel="a", command="chat", body_bytes=b"\xff"))
    assert found == b"\x0a\x01a\x18\x01"
    assert world.calls.calls == [("publish", {"channel": "a", "command": "chat", "body_base64": "/w=="})]
    assert world.service.running == 0


def test_there_is_a_method_for_each_of_the_table_and_no_other() -> None:
    service = World().service
    for method in METHODS:
        assert service.service(type("Details", (), {"method": f"/{SERVICE}/{rpc_name(method.name)}"})) is not None
    assert service.service(type("Details", (), {"method": f"/{SERVICE}/publish"})) is None


@pytest.mark.parametrize(
    ("metadata", "code", "status", "why"),
    [
        ((), StatusCode.UNAUTHENTICATED, 401, "a key is needed"),
        ((("authorization", "Bearer wrong"),), StatusCode.UNAUTHENTICATED, 401, "not valid"),
        ((("authorization-bin", b"Bearer x"),), StatusCode.UNAUTHENTICATED, 401, "a key is needed"),
        ((*KEY, *KEY), StatusCode.INVALID_ARGUMENT, 400, "more than once"),
        ((*KEY, ("origin", "http://a.example")), StatusCode.PERMISSION_DENIED, 403, "pages of another site"),
        ((*KEY, ("idempotency-key", "a b")), StatusCode.INVALID_ARGUMENT, 400, "visible ASCII"),
    ],
)
def test_callers_are_refused_before_their_request_is_read(
    metadata: Any, code: StatusCode, status: int, why: str
) -> None:
    world = World()
    found, context = world.ask("users", metadata=metadata)
    assert (found, context.code, world.calls.calls) == (None, code, [])
    assert problem(context)["status"] == status
    assert why in context.details
    assert context.reads == ("idempotency-key" in dict(metadata))


def test_an_address_with_many_wrong_keys_waits() -> None:
    world = World()
    for _ in range(FAILURES):
        world.ask("users", metadata=(("authorization", "Bearer wrong"),))
    _, context = world.ask("users")
    assert (context.code, context.trailing["retry-after"]) == (StatusCode.RESOURCE_EXHAUSTED, "1")
    assert world.ask("users", peer="ipv4:192.0.2.2:4000")[0] == b""
    assert world.ask("users", peer="ipv6:%5B2001:db8::1%5D:4000")[0] == b""


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("users", {}, None),
        ("nodes", {}, StatusCode.PERMISSION_DENIED),
        ("publish", {"channel": "news.de", "command": "x"}, None),
        ("publish", {"channel": "chat", "command": "x"}, StatusCode.PERMISSION_DENIED),
        ("publish", {"channel": "news.de"}, StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_scope_holds_as_over_http(method: str, params: dict[str, Any], code: StatusCode | None) -> None:
    world = World()
    _, context = world.ask(method, request(method, **params), EDITOR)
    assert context.code is code
    assert bool(world.calls.calls) is (code is None)


async def until(condition: Callable[[], Any]) -> None:
    """Let others have turns until *condition* holds."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("what was waited for did not happen")


def _raise(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (Problem(409, "does not fit"), StatusCode.ABORTED, 409),
        (Problem(404, "is not there"), StatusCode.NOT_FOUND, 404),
        (BusUnavailable("is away"), StatusCode.UNAVAILABLE, 503),
        (LocalProtocolError("cannot be written"), StatusCode.INVALID_ARGUMENT, 400),
    ],
)
def test_errors_have_status_codes_and_details(error: Exception, code: StatusCode, status: int) -> None:
    _, context = World(lambda: _raise(error)).ask("users")
    assert context.code is code
    assert (problem(context)["status"], problem(context)["detail"]) == (status, context.details)


def test_a_mistake_is_logged_and_not_told(failures: list[Any]) -> None:
    _, context = World(lambda: _raise(ZeroDivisionError("with a secret"))).ask("users")
    assert (context.code, context.details) == (StatusCode.INTERNAL, "internal error; see the log of the server")
    assert [type(error) for error in failures] == [ZeroDivisionError]
    failures.clear()


def test_an_answer_that_is_kept_is_told_again() -> None:
    world = World(lambda: {"users": [{"user": str(len(world.calls.calls))}]})
    metadata = (*KEY, ("idempotency-key", "one"))
    first, _ = world.ask("users", b"", metadata)
    assert world.ask("users", b"", metadata)[0] == first
    assert world.ask("users", b"")[0] != first
    assert world.ask("users", request("users", limit=1), metadata)[1].code is StatusCode.ABORTED


def test_who_sends_no_request_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PATIENCE", 0.001)
    world = World()

    async def run() -> Context:
        context = Context(asyncio.get_running_loop().create_future())
        await world.take("users", context)
        return context

    context = asyncio.run(run())
    assert (context.code, world.service.running) == (StatusCode.DEADLINE_EXCEEDED, 0)
    assert "no request came" in context.details


def test_who_ends_without_a_request_is_refused() -> None:
    assert World().ask("users", object())[1].code is StatusCode.INVALID_ARGUMENT


def test_a_change_is_not_left_half_done_when_its_caller_leaves() -> None:
    answers: list[Deferred[Any]] = []
    world = World(lambda: answers.append(Deferred()) or answers[-1])

    async def run() -> None:
        call = asyncio.ensure_future(world.take("users", Context()))
        await until(lambda: answers)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert world.service.running == 1
        answers[0].callback({})
        await until(lambda: not world.service.running)

    asyncio.run(run())


def test_a_batch_ends_when_its_caller_leaves() -> None:
    answers: list[Deferred[Any]] = []
    world = World(lambda: answers.append(Deferred()) or answers[-1])
    clock: Any = world.service._answering._clock
    batch = request("batch", calls=[{"method": "users"}] * 3)

    async def run() -> None:
        call = asyncio.ensure_future(world.take("batch", Context(batch)))
        await until(lambda: answers)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        answers[0].callback({})
        await until(lambda: clock.advance(0) or not world.service.running)

    asyncio.run(run())
    assert len(answers) == 1


def test_too_many_calls_at_a_time_are_refused() -> None:
    answers: list[Deferred[Any]] = []
    world = World(lambda: answers.append(Deferred()) or answers[-1])

    async def run() -> Context:
        calls = [asyncio.ensure_future(world.take("users", Context())) for _ in range(MAX_RUNNING)]
        await until(lambda: len(answers) == MAX_RUNNING)
        one_more = Context()
        refused = asyncio.ensure_future(world.take("users", one_more))
        await until(refused.done)
        for answer in answers:
            answer.callback({})
        assert await asyncio.gather(*calls) == [b""] * MAX_RUNNING
        return one_more

    context = asyncio.run(run())
    assert (context.code, context.trailing["retry-after"]) == (StatusCode.RESOURCE_EXHAUSTED, "1")
    assert world.service.running == 0
