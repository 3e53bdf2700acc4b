"""Implementations of :class:`lhttp_tx.interfaces.IBus`."""
