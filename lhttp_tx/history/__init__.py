"""
History: stores what is published to channels, for clients that were away.

A bus delivers, and a store keeps. :mod:`lhttp_tx.history.archive` connects the two. A store implements
:class:`lhttp_tx.interfaces.IHistoryStore`. Public: :class:`~lhttp_tx.history.values.Retention` and the stores.
"""
