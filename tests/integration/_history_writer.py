"""
A process that publishes into a history in a file, as fast as it goes, and says what it was told.

Run with the file, and the seconds after which it gives up waiting. Each line of its output is ``epoch E``, ``shown
CHANNEL OFFSET NUMBER`` for a publication that subscribers got, ``safe OFFSET`` when all up to there was confirmed,
``unknown REASON`` when that failed, ``refused REASON`` for each publication that was not taken, or ``end``.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from twisted.internet import reactor

from lhttp_tx.codec.positions import offsets_of
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.sqlite import SQLiteHistory
from lhttp_tx.history.values import Placing, Retention

CHANNELS = ("a", "b", "c")
KEPT = Retention("kept", messages=1_000_000)
SLICE = 20
OUTSTANDING = 5


def payload_of(number: int) -> bytes:
    return b"LHTTP/1.0 chat\r\n\r\n%d" % number


class Publisher:
    def __init__(self, path: str, patience: float) -> None:
        self.store = SQLiteHistory(path, reactor, patience=patience)
        self.number = 0
        self.epoch = ""
        self.outstanding = 0
        self.is_ending = False

    def say(self, *lines: str) -> None:
        os.write(1, "".join(f"{line}\n" for line in lines).encode())

    def begin(self, _: object) -> None:
        self.publish()

    def publish(self) -> None:
        if self.is_ending:
            return
        if self.store.epoch != self.epoch:
            self.epoch = self.store.epoch
            self.say(f"epoch {self.epoch}")
        lines = []
        last = 0
        for _ in range(SLICE):
            self.number += 1
            channel = CHANNELS[self.number % 3]
            placing = Placing(channel, f"{os.getpid()}.{self.number}" if self.number % 10 == 0 else None)
            try:
                marked = self.store.append(channel, KEPT, [payload_of(self.number)], False, placing)
            except HistoryUnavailable as error:
                self.say(*lines, f"refused {error.reason}")
                reactor.callLater(0.05, self.publish)
                return
            last = offsets_of(marked[0])[0]
            lines.append(f"shown {channel} {last} {self.number}")
        self.say(*lines)
        self.outstanding += 1
        confirmed = self.store.confirm()
        assert confirmed is not None
        confirmed.addCallbacks(self.safe, self.unknown, callbackArgs=(last,))
        if self.outstanding < OUTSTANDING:
            reactor.callLater(0, self.publish)

    def safe(self, _: object, last: int) -> None:
        self.outstanding -= 1
        self.say(f"safe {last}")
        reactor.callLater(0, self.publish)

    def unknown(self, failure: Any) -> None:
        self.outstanding -= 1
        self.say(f"unknown {failure.value.reason}")
        reactor.callLater(0.05, self.publish)

    def end(self, *_: object) -> None:
        self.is_ending = True
        self.store.stop().addCallback(lambda _: self.say("end")).addBoth(lambda _: reactor.stop())

    def fail(self, failure: Any) -> None:
        self.say(f"failed {failure.value}")
        reactor.stop()


if __name__ == "__main__":
    publisher = Publisher(sys.argv[1], float(sys.argv[2]))
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(publisher.end))
    reactor.callWhenRunning(lambda: publisher.store.start().addCallbacks(publisher.begin, publisher.fail))
    reactor.run(installSignalHandlers=False)
