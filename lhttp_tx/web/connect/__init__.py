"""
Whole clients without WebSocket: ``/connect`` and ``/send``.

Source: the protocol document, section "Without WebSocket".
"""
