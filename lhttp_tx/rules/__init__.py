"""Channel rules: who may do what in which channel, and the filters that enforce it."""
