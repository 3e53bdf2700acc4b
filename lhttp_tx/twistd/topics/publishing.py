"""
The options for publishing by HTTP.

A part of :mod:`lhttp_tx.twistd.options`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from twisted.python import usage

from lhttp_tx.guard.access import check_token
from lhttp_tx.guard.files import read_file
from lhttp_tx.twistd.topics.topic import Topic, usage_errors

__all__ = ["PublishingOptions"]

TOKEN_VARIABLE = "LHTTP_PUBLISH_TOKEN"  # noqa: S105 - the name of a variable


class PublishingOptions(Topic):
    """
    ``--publish-token-file``.

    :ivar environment: the environment variables.
    """

    optParameters = [
        ["publish-token-file", None, None, f"File with the token for POST /publish [default: ${TOKEN_VARIABLE}]"]
    ]

    secret_variables: Mapping[str, str] = {"publish-token-file": TOKEN_VARIABLE}
    """Environment variables that contain a secret, by the option that names a file with the secret."""

    def __init__(self) -> None:
        super().__init__()
        self.environment: Mapping[str, str] = os.environ

    def publish_token(self) -> bytes | None:
        """
        Return the secret for publishing by HTTP, if there is one.

        :raises UsageError: if it cannot be read, or HTTP cannot transmit it.
        """
        path = self["publish-token-file"]
        if path is None:
            token, source = os.fsencode(self.environment.get(TOKEN_VARIABLE, "")), f"${TOKEN_VARIABLE}"
            if not token:
                return None
        else:
            source = path
            try:
                token = read_file(path, wait=self.wait)
            except (OSError, ValueError) as error:
                raise usage.UsageError(f"--publish-token-file: {error}") from None
        with usage_errors(f"the token in {source}"):
            return check_token(token.strip())
