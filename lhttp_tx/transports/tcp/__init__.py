"""LHTTP on a plain stream of bytes, TCP, TLS or a UNIX socket, for devices that cannot speak WebSocket."""
