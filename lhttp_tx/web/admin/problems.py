"""
Answers of the admin side: JSON, and errors as ``application/problem+json`` (RFC 9457).

Used by all resources of the admin side. Browsers and proxies may not store their answers.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from twisted.web.server import Request

__all__ = ["PROBLEM", "Problem", "answer", "problem_body", "refuse"]

PROBLEM = "application/problem+json"
"""The media type of an error (RFC 9457)."""


class Problem(Exception):
    """
    An error that a caller gets as the answer.

    :ivar status: the HTTP status.
    :ivar detail: one sentence for people: what is wrong, and what to do.
    :ivar headers: further headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}

    @property
    def told(self) -> dict[str, Any]:
        """The body of the answer, a JSON value."""
        return {"type": "about:blank", "title": _title(self.status), "status": self.status, "detail": self.detail}


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problem_body(problem: Problem) -> bytes:
    """Return the body of an error."""
    return json.dumps(problem.told).encode("ascii") + b"\n"


def answer(request: Request, status: int, content_type: str, body: bytes) -> bytes:
    """Set status and headers of *request*, and return its body: nothing for HEAD."""
    request.responseHeaders.removeHeader(b"server")
    request.setResponseCode(status, _title(status).encode("ascii"))
    request.setHeader(b"content-type", content_type.encode("ascii"))
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"x-content-type-options", b"nosniff")
    request.setHeader(b"content-length", b"%d" % len(body))
    return b"" if request.method == b"HEAD" else body


def refuse(request: Request, problem: Problem) -> bytes:
    """Set status and headers of *request* to those of an error, and return the body."""
    for name, value in problem.headers.items():
        request.setHeader(name.encode("ascii"), value.encode("ascii"))
    return answer(request, problem.status, PROBLEM, problem_body(problem))
