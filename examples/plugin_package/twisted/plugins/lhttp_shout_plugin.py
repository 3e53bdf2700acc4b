"""Registers the processor with Twisted, so that every LHTTP server finds it."""

from lhttp_shout import Shout

shout = Shout()
