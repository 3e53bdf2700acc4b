"""
The people in a channel with presence, kept up to date by the client.

:meth:`lhttp_tx.client.client.Client.presence` makes a
:class:`~lhttp_tx.client.presence.following.Presence`. Programs import the classes from :mod:`lhttp_tx.client`.
"""

from lhttp_tx.client.presence.following import Presence
from lhttp_tx.client.presence.people import Person, PresenceChange, PresenceView

__all__ = ["Person", "Presence", "PresenceChange", "PresenceView"]
