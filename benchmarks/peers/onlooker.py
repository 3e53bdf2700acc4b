"""
Somebody who looks at a server: the overview of the dashboard in a browser, and Prometheus.

``python onlooker.py PORT``, with the port of the admin side, and a key in the environment. It prints a line once it has
seen everything.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time

_CALLS = {"nodes": 3.0, "rates": 2.0, "incidents": 3.0, "info": 10.0}
"""The calls of the overview, and the seconds between the end of one and the next, as in its pages."""

_SCRAPE = 5.0
"""Seconds between two readings of the metrics; Prometheus reads them every 15 to 60 seconds."""


def main(port: int, key: str) -> None:
    """Look until the process ends."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    due = dict.fromkeys((*_CALLS, "metrics"), 0.0)
    latest = 0.0
    has_told = False
    while True:
        name = min(due, key=lambda found: due[found])
        time.sleep(max(0.0, due[name] - time.monotonic()))
        parameters = {"since": max(0, int(latest) - 10)} if name == "rates" and latest else {}
        request = ("GET", "/metrics", None) if name == "metrics" else ("POST", f"/api/{name}", json.dumps(parameters))
        try:
            connection.request(*request, headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):  # the server closes old connections
            connection.close()
            connection.request(*request, headers)
            response = connection.getresponse()
            body = response.read()
        if response.status != 200:
            sys.exit(f"{name}: {response.status} {body[:200]!r}")
        if name == "rates":
            latest = max((sample["time"] for sample in json.loads(body)["samples"]), default=latest)
        due[name] = time.monotonic() + (_SCRAPE if name == "metrics" else _CALLS[name])
        if not has_told and all(due.values()):
            has_told = True
            print("looking", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), os.environ["ONLOOKER_KEY"])
