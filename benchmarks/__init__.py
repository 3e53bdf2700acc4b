"""
Benchmarks: the server beside its peers, measured in one run, turn by turn.

Run ``python -m benchmarks --help``. Nothing in the server imports this package. It needs Linux, for it reads the CPU
time of other processes, and is at its best with two cores or more: one for the server, one for the load.
"""
