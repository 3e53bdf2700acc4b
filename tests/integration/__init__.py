"""Tests against a running server: real processes, real sockets, real clients."""
