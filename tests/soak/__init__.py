"""
A long use of a real server, with an account of every message.

Hundreds of clients come, go, subscribe, publish, stall and break. At the end, and for each client that leaves in good
order, the account is made up: each message that the server accepted (its publisher has the receipt) came exactly once,
in order, to every client that was subscribed all the while. Clients that were closed because they did not read are
counted against the lines of the server's log. What the server holds at the end is compared with the beginning.

:mod:`soak.ledger` keeps the account, :mod:`soak.client` is one connection, :mod:`soak.actors` are the kinds of
clients, :mod:`soak.__main__` is the program::

    PYTHONPATH=tests python -m soak SECONDS
"""
