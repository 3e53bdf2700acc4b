"""``twistd lhttp --reload``: a process whose processors change while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from integration._server import RawClient, ServerProcess, message, wait_until

SOURCE = """
from lhttp_tx import processor


@processor("word")
def word(request):
    request.reply(body="{word}")
"""


def ask(client: RawClient) -> str:
    """Return the body of the answer of the processor."""
    client.send(message("word"))
    return client.receive()[1].decode().partition("\r\n\r\n")[2]


def test_changed_processors_answer_and_a_broken_file_keeps_the_old_ones(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    file = tmp_path / "words.py"
    file.write_text(SOURCE.format(word="first"), "utf-8")
    server = serve("--reload", "--processor", "words.py:word")
    with RawClient(server.port) as client:
        assert ask(client) == "first"
        file.write_text(SOURCE.format(word="second"), "utf-8")
        wait_until(lambda: ask(client) == "second", "the new code answers")

        file.write_text("def word(:\n", "utf-8")
        server.wait_for_log(f"{file.resolve()}: not loaded, the old processors stay active: ")
        assert "SyntaxError" in server.log or "invalid syntax" in server.log
        assert ask(client) == "second"

        file.write_text(SOURCE.format(word="third"), "utf-8")
        wait_until(lambda: ask(client) == "third", "the mended code answers")
