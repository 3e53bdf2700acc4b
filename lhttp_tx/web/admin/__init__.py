"""The admin side: what operators ask a running server, on a listener of its own, with a key."""
