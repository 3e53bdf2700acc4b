"""The options of ``twistd lhttp``, one module for each topic; :mod:`lhttp_tx.twistd.options` puts them together."""
