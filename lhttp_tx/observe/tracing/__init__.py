"""
Traces for OpenTelemetry: what of a trace travels in messages, the spans, and their way to a collector.

Only this folder knows OpenTelemetry, and it imports it where a server traces. :mod:`lhttp_tx.assembly.tracing` and
:mod:`lhttp_tx.web.traced` make the spans.
"""
