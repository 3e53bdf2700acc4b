"""
Send files to ``examples/upload.py`` in one multipart message, and print the answer::

    python examples/upload_client.py ws://127.0.0.1:8081/ README.md LICENSE
"""

import sys
from pathlib import Path

from websockets.sync.client import connect

from lhttp_tx import Headers, Message, Part, join_parts, parse


def main(url: str, *names: str) -> None:
    """Send the files called *names*."""
    files = [Path(name) for name in names]
    offsets, body = join_parts(Part(Headers([("name", file.name)]), file.read_bytes()) for file in files)
    message = Message("upload", {"multipart": offsets}, body, binary=True)
    with connect(url) as connection:
        connection.send(message.raw)
        answer = connection.recv()
    print(parse(answer.encode() if isinstance(answer, str) else answer).text)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: upload_client.py URL FILE...")
    main(*sys.argv[1:])
