"""
Answer every ``echo`` message with itself.

Start a server with it::

    twistd -n lhttp --port 8081 --processor examples/echo.py:echo
"""

from lhttp_tx import Request, processor


@processor("echo")
def echo(request: Request) -> None:
    """Send the message back to its sender."""
    request.reply()
