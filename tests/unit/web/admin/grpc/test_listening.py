"""lhttp_tx.web.admin.grpc.listening: descriptions of endpoints for gRPC."""

from __future__ import annotations

import pytest

pytest.importorskip("grpc", reason="grpcio is missing (the extra grpc)")

from twisted.internet.task import Clock

from lhttp_tx.web.admin.grpc.listening import GRPCEndpoint, read_description


@pytest.mark.parametrize(
    ("description", "kind", "parameters"),
    [
        ("tcp:9082", "tcp", {"port": "9082"}),
        ("tcp:port=9082:interface=\\:\\:1", "tcp", {"port": "9082", "interface": "::1"}),
        (r"ssl:1:privateKey=C\:\\key:certKey=c", "ssl", {"port": "1", "privateKey": "C:\\key", "certKey": "c"}),
    ],
)
def test_a_description_is_read(description: str, kind: str, parameters: dict[str, str]) -> None:
    assert read_description(description) == (kind, parameters)


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ("unix:/run/grpc", "gRPC has no endpoints unix"),
        ("haproxy:tcp:1", "gRPC has no endpoints haproxy"),
        ("tcp:1:backlog=5", "no use for backlog="),
        ("ssl:1:dhParameters=a", "no use for dhParameters="),
    ],
)
def test_what_grpc_cannot_do_is_refused(description: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_description(description)


def test_another_reactor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"call twisted\.internet\.asyncioreactor\.install\(\) first"):
        GRPCEndpoint(Clock(), "tcp:0")
