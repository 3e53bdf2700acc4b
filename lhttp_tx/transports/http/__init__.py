"""Clients without a connection of their own: they send and fetch with HTTP requests, on any node."""
