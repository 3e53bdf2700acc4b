"""
The client's WebSocket edge: one connection, from the address to its messages.

Used by :mod:`lhttp_tx.client.uplink`, which keeps a connection up, and by :mod:`lhttp_tx.client.client`.
"""
