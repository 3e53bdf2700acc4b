"""
The ``lhttp`` command: its subcommands, and the texts and exit statuses of errors.

Each subcommand has its own module. They use click.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from lhttp_tx.client.command.admin import admin_command
from lhttp_tx.client.command.bench import bench_command
from lhttp_tx.client.command.chat import chat_command
from lhttp_tx.client.command.completion import completion_command
from lhttp_tx.client.command.history import history_command
from lhttp_tx.client.command.publish import publish_command
from lhttp_tx.client.command.request import presence_command, request_command
from lhttp_tx.client.command.running import Exit, Interrupted
from lhttp_tx.client.command.subscribe import subscribe_command
from lhttp_tx.client.command.text import say
from lhttp_tx.client.command.token import token_command
from lhttp_tx.client.command.upload import upload_command
from lhttp_tx.client.errors import ConnectFailed, LoginFailed
from lhttp_tx.client.publisher import PublishFailed
from lhttp_tx.errors import LHTTPError

__all__ = ["lhttp", "run"]

_EPILOG = (
    "Exit status: 0 success; 1 refused or failed; 2 wrong usage; 3 cannot connect; 130 "
    "interrupted; 141 the reader of the output has ended."
)


def run(arguments: list[str]) -> int:
    """Run the command with *arguments*, and return its exit status. An error is one line on stderr."""
    try:
        result = lhttp.main(arguments, prog_name="lhttp", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else Exit.OK
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except Interrupted as interrupted:
        return interrupted.status
    except LoginFailed as error:
        say(f"{_advice(error)} (status {error.status})")
        return Exit.FAILED
    except ConnectFailed as error:
        say(f"{error.reason}; is a server running there? Start one: twistd lhttp --port 8081")
        return Exit.NOT_CONNECTED
    except LHTTPError as error:
        say(f"{_advice(error)} (status {error.status})")
        return Exit.FAILED
    except OSError as error:
        say(f"{error.filename or 'the system'}: {error.strerror or error}")
        return Exit.FAILED


def _advice(error: LHTTPError) -> str:
    """Return the text of an error, with advice if any."""
    hints = {
        401: "log in with a valid token in --token-file, or with --user and its password",
        413: "send less, or start the server with a larger --max-message-size",
        429: "send less at a time",
        504: "try again, or allow more with --timeout",
    }
    hint = hints.get(413 if "(1009)" in error.reason else error.status)
    if isinstance(error, PublishFailed) and error.status == 401:
        hint = "give the server's token with --token-file or LHTTP_PUBLISH_TOKEN"
    elif isinstance(error, LoginFailed) and error.status != 401:
        hint = None
    return f"{error.reason}; {hint}" if hint else error.reason


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(package_name="lhttp_tx", prog_name="lhttp")
def lhttp() -> None:
    """
    Talk to an LHTTP server.

    Set the server with --url or the environment variable LHTTP_URL.
    """


@lhttp.command("check-config", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def check_config(arguments: tuple[str, ...]) -> int:
    """Check the configuration of a server."""
    status: int = import_module("lhttp_tx.twistd.checking").main(arguments)  # imports the server
    return status


for _command in (
    chat_command,
    subscribe_command,
    publish_command,
    request_command,
    history_command,
    presence_command,
    upload_command,
    bench_command,
    token_command,
    completion_command,
    admin_command,
):
    lhttp.add_command(_command)
