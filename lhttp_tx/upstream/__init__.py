"""Passes messages on to HTTP backends that the operator allows."""
