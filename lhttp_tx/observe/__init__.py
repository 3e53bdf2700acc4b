"""The server's output for operators: its log, limits on what clients can cause there, and errors in one line."""
