"""Where spans go, and what they say of the server."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from lhttp_tx.observe.tracing.provider import check_headers, endpoint_of, is_installed, make_provider


@pytest.mark.parametrize("url", ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"])
def test_the_path_may_be_left_out(url: str) -> None:
    assert endpoint_of(url) == "http://c:4318/v1/traces"


def test_a_header_is_checked() -> None:
    check_headers({"authorization": "Bearer a b", "x-empty": ""})
    for name, value in (("a:b", "1"), ("", "1"), ("a", "1\n"), ("a", " 1")):
        with pytest.raises(ValueError, match=r"no name|not visible"):
            check_headers({name: value})


@pytest.mark.skipif(not is_installed(), reason="OpenTelemetry is missing (the extra otel)")
def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    def attributes() -> dict[str, Any]:
        provider, _, _ = make_provider(
            "http://127.0.0.1:1", headers={}, instance="n1", version="9", ratio=0.0, reactor=Clock()
        )
        return dict(provider.resource.attributes)

    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    found = attributes()
    assert (found["service.name"], found["service.instance.id"], found["service.version"]) == ("lhttp_tx", "n1", "9")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=mine,region=eu")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "chat")
    found = attributes()
    assert (found["service.name"], found["service.instance.id"], found["region"]) == ("chat", "mine", "eu")
