"""
History: stores what is published to channels, for clients that were away.

A bus delivers publications, and a store keeps them. :mod:`lhttp_tx.history.archive` connects the two. A store
implements :class:`lhttp_tx.interfaces.IHistoryStore`. Public: :class:`~lhttp_tx.history.values.Retention` and the
stores.
"""
