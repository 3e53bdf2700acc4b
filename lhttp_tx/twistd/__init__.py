"""The command line of the server: options, settings, workers, signals."""
