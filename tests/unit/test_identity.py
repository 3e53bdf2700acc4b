"""Who a connection belongs to."""

from lhttp_tx import Identity, Message, Request, processor
from lhttp_tx.identity import new_connection_id
from lhttp_tx.testing import Server


def test_connections_have_names_of_their_own() -> None:
    assert len({new_connection_id() for _ in range(1_000)}) == 1_000


def test_it_shows_neither_claims_nor_parameters() -> None:
    assert "secret" not in repr(Identity("alice", "c", {"a": "secret"}, {"b": "secret"}))


def test_who_has_said_who_it_is() -> None:
    assert Identity("alice", "c").authenticated
    assert not Identity(None, "c").authenticated


def test_a_client_of_an_open_server_is_nobody_at_its_address() -> None:
    identity = Server().connect("192.0.2.1", target="/?room=a").session.identity
    assert (identity.user, identity.address, identity.parameters) == (None, "192.0.2.1", {"room": "a"})


def test_processors_see_it() -> None:
    @processor("who")
    def who(request: Request) -> None:
        identity = request.session.identity
        request.reply(f"{identity.user} {identity.claims['role']}")

    client = Server(processors=[who]).connect(user="alice", claims={"role": "admin"})
    client.send(Message("who"))
    assert client.take()[0].text == "alice admin"


def test_it_stays_the_same() -> None:
    session = Server().connect().session
    assert session.identity is session.identity
