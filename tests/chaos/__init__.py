"""
A checker of what is promised while servers, NATS and links fail: ``python -m chaos``.

With history, publishers send messages with ids until they have receipts; subscribers keep positions. At the end each
publication that got a receipt must have reached every subscriber once and in order, or be covered by a ``missed``.
:mod:`chaos.bus` says what is checked without history.
"""
