"""
Event streams: ``GET /events`` for any ``EventSource``, for ``curl -N``, and for programs.

Source: the protocol document, section "Event streams", and the HTML standard, section "Server-sent events".
"""
