"""Makes ``twistd lhttp`` and ``twist lhttp`` known to Twisted."""

from twisted.application.service import ServiceMaker

lhttp = ServiceMaker("LHTTP", "lhttp_tx.twistd.tap", "A publish/subscribe server for LHTTP over WebSocket.", "lhttp")
