"""Makes the processor known to Twisted, and so to every LHTTP server."""

from lhttp_shout import Shout

shout = Shout()
