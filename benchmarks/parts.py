"""
What a publication costs in each part of the server: ``python -m benchmarks.parts``.

In one process and without sockets. The parts are those of a burst, a read of 64 KiB at a time. Where there is a C
compiler, it also says what the first part would cost in C.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from benchmarks.scenarios import BODY, MIXED_BODIES, ROOM
from benchmarks.wire import client_frame
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.frames import PLAIN, build_frames
from lhttp_tx.transports.websocket.reader import take_messages

__all__ = ["main", "measure"]

Part: TypeAlias = tuple[Callable[[], object], int]
"""What is measured, and how many publications it handles."""

READ_SIZE = 65_536
LARGE_BODY = b"x" * 60_000


def publications(bodies: Sequence[bytes], size: int = READ_SIZE) -> list[bytes]:
    """Return the publications that one read of about *size* bytes brings in."""
    found: list[bytes] = []
    for body in itertools.cycle(bodies):
        if sum(map(len, found)) + 6 * len(found) + len(body) > size and found:
            return found
        found.append(f"LHTTP/1.0 chat\r\npublish:{ROOM}\r\n\r\n".encode() + body)
    return found


def masked(payloads: Sequence[bytes]) -> bytes:
    """Return their frames, each with a mask of its own."""
    masks = random.Random(1)  # noqa: S311 - the same ones each time
    return b"".join(client_frame(payload, mask=masks.randbytes(4)) for payload in payloads)


def compiled() -> Callable[[bytes], list[bytes]] | None:
    """Return the function in C, or ``None`` where it cannot be compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory, "unmask.so")
        command = [compiler, "-O2", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"]
        source = Path(__file__).with_name("unmask.c")
        if subprocess.run([*command, str(source), "-o", str(library)], check=False, capture_output=True).returncode:
            return None
        function = ctypes.PyDLL(str(library)).take_payloads
    function.restype, function.argtypes = ctypes.py_object, [ctypes.py_object]
    return function  # type: ignore[no-any-return]


def through_the_server(payloads: list[bytes], deliver: Callable[[bytes], None]) -> Callable[[], object]:
    """Return what takes *payloads* from a session by way of its filter, bus and hub to one subscriber."""
    server = Server()
    client = server.connect()
    session, hub = client.session, server.engine.hub
    hub.subscribe("a subscriber", ROOM, lambda delivery: deliver(delivery.encoded(PLAIN)))

    def run() -> None:
        taken = 0
        hub.cork()
        while taken < len(payloads):
            taken = session.receive_run(payloads, taken, False)
        hub.uncork()

    return run


def measure(parts: dict[str, Part], seconds: float) -> dict[str, float]:
    """Return microseconds a message for each part, the best of the turns that fit into *seconds* in all."""
    best = dict.fromkeys(parts, float("inf"))
    end = time.perf_counter() + seconds
    while True:
        for name, (run, count) in parts.items():
            begin = time.perf_counter()
            run()
            best[name] = min(best[name], (time.perf_counter() - begin) / count * 1e6)
        if time.perf_counter() > end:
            return best


def main(arguments: Sequence[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to measure (default: 5)")
    options = parser.parse_args(arguments)
    alike, mixed, large = publications([BODY]), publications(MIXED_BODIES), publications([LARGE_BODY])
    parts: dict[str, Part] = {}
    function = compiled()
    for name, payloads in (("32 bytes", alike), ("8 to 56 bytes", mixed), ("60,000 bytes", large)):
        data = masked(payloads)
        parts[f"frames taken apart, bodies of {name}"] = partial(take_messages, data, 0, READ_SIZE), len(payloads)
        if function is not None:
            parts[f"the same in C, bodies of {name}"] = partial(function, data), len(payloads)
    parts["from the session to a subscriber, 32 bytes"] = through_the_server(alike, lambda frames: None), len(alike)
    parts["of that: frames built"] = partial(build_frames, alike, False), len(alike)
    for name, cost in measure(parts, options.seconds).items():
        print(f"{name:44} {cost:8.3f} us a publication")
    if function is None:
        print("there is no C compiler, or no Python.h")


if __name__ == "__main__":
    main(sys.argv[1:])
