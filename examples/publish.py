"""
Publish from a script, a cron job or a web application: one HTTP POST to the server::

    python examples/publish.py http://127.0.0.1:8081/publish room.a "hello from a script"

If the operator has set a token, put it into the environment variable LHTTP_PUBLISH_TOKEN.
"""

import os
import sys

from lhttp_tx import PublishFailed, post_message


def main(url: str, channel: str, text: str) -> None:
    """Publish *text* to *channel*, or exit with the server's reason."""
    try:
        post_message(url, channel, "chat", body=text, token=os.environ.get("LHTTP_PUBLISH_TOKEN") or None)
    except PublishFailed as error:
        sys.exit(f"{error.status}: {error.reason}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: publish.py URL CHANNEL TEXT")
    main(*sys.argv[1:])
