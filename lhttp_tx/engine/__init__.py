"""
The handling of messages: connections, plans, processors, channels. It knows no sockets, and gets the time from a clock.
"""
