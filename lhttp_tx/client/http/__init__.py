"""
A connection over HTTP requests, for networks that break WebSocket, and the rules for when the client uses it.

Source: the protocol document, section "Without WebSocket". ``lhttp-http.js`` does the same in browsers.
"""
