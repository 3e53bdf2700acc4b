"""Resources for twisted.web: the WebSocket, ``POST /publish``, and the site that holds both."""
