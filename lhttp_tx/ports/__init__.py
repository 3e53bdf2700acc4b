"""The endpoints of the server: ports, UNIX sockets, and starts that may be stopped."""
