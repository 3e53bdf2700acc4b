"""Bytes and values: messages, channel names, limits. Pure functions; nothing here does I/O."""
