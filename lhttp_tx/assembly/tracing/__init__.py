"""
Parts of a server that make spans of what they do.

:mod:`lhttp_tx.assembly.parts` uses them if ``Config(trace=...)``: sessions, hub, archive and upstream client get
another class, so that a server without traces pays nothing. A message that is traced goes through all steps of its
plan, within a span that begins before its filters and ends when it is answered.
"""
