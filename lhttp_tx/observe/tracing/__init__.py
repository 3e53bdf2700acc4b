"""
Traces for OpenTelemetry: the headers of messages that name a trace, the spans, and their export to a collector.

The modules here import OpenTelemetry only in a server that traces. :mod:`lhttp_tx.assembly.tracing` and
:mod:`lhttp_tx.web.traced` make the spans.
"""
