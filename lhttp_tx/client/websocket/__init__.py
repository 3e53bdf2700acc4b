"""
The WebSocket connections of a client: address, handshake, login, and messages.

Used by :mod:`lhttp_tx.client.uplink`, which keeps the client connected, and by :mod:`lhttp_tx.client.client`.
"""
