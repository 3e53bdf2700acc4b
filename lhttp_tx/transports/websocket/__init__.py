"""The WebSocket side: the only folder of the server that knows Autobahn."""
