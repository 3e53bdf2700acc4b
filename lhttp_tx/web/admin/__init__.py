"""The admin side of a server: an API, metrics and health checks for operators, on a separate listener and with keys."""
