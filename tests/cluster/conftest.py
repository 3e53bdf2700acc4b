"""The fixtures of the integration tests serve here too."""

from integration.conftest import certificate, serve

__all__ = ["certificate", "serve"]
