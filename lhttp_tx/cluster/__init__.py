"""The connections of all nodes as a whole: presence, limits for users, and control."""
