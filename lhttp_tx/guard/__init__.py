"""Who may connect, from where, how often, and how many."""
