"""The connections of all nodes together: presence, limits for users, and control."""
