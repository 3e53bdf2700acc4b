"""
Take uploads of several files in one message, and answer with their names and sizes.

Start a server with it. Uploads are larger than chat messages, so raise the limit for messages::

    twistd -n lhttp --port 8081 --processor examples/upload.py:upload --max-message-size 1048576

and send files with ``examples/upload_client.py``.
"""

from lhttp_tx import Refused, Request, processor


@processor("upload")
def upload(request: Request) -> None:
    """Answer with a line for each part."""
    if not request.parts:
        raise Refused(400, "an upload has a multipart header")
    lines = [f"{part.headers.get('name', '?')} {len(part.body)}" for part in request.parts]
    request.reply("\n".join(lines), headers=(), binary=False)
