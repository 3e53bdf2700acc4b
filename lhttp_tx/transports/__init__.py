"""The transports, one folder for each: they read messages and write deliveries. None decides about a message."""
