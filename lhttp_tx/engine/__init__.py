"""
The handling of messages: connections, plans, processors, channels. It uses no sockets. A clock that is passed in tells
the time.
"""
