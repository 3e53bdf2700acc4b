"""
Parts of a server that make spans of their work.

:mod:`lhttp_tx.assembly.parts` uses them if ``Config(trace=...)`` is set: sessions, hub, archive and upstream client get
subclasses, so that a server without traces does no extra work. A traced message goes through all steps of its plan,
within a span that begins before its filters and ends when it is answered.
"""
