"""
``lhttp admin``: calls the admin side of a server. It has subcommands for the methods of the API, and one for any.

The command sends one HTTP request with the standard library, prints the answer and exits.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from lhttp_tx.client.command.running import Exit
from lhttp_tx.client.command.text import escaped, say, write_line
from lhttp_tx.observe.methods import BY_NAME, METHODS, Method, Parameter

__all__ = ["admin_command"]

_DEFAULT_URL = "http://127.0.0.1:9081"
_KEY_VARIABLE = "LHTTP_ADMIN_KEY"
_MAX_ANSWER = 67_108_864
"""The most bytes of an answer."""

_TYPES = {"integer": click.INT, "boolean": click.BOOL, "string": click.STRING, "array": click.STRING}


def call(url: str, key: str, method: str, params: dict[str, Any], *, timeout: float, ca: Path | None) -> Any:
    """
    Call a method of the API, and return its answer.

    :param url: the URL of the admin side.
    :param key: the secret of an admin key.
    :param method: the name of the method.
    :param params: its parameters.
    :param timeout: the most seconds to wait for the connection, and for each read.
    :param ca: a file with certificates to trust, instead of the system's.
    :raises click.ClickException: if the server refuses, or is not an admin side. The text says why.
    :raises OSError: if the connection fails.
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=timeout, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    told = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", f"{parts.path.rstrip('/')}/api/{method}", json.dumps(params), told)
        response = connection.getresponse()
        body = response.read(_MAX_ANSWER)
    except http.client.HTTPException as error:
        raise click.ClickException(f"{url} does not speak HTTP: {error!r}") from None
    finally:
        connection.close()
    try:
        found = json.loads(body)
    except ValueError:
        raise click.ClickException(
            f"{url} answers with status {response.status}, but is not the admin side of a server"
        ) from None
    if response.status != 200:
        detail = found.get("detail", "no reason") if isinstance(found, dict) else "no reason"
        raise click.ClickException(f"{escaped(str(detail))} (status {response.status})")
    return found


def _key(path: Path | None) -> str:
    secret = os.environ.get(_KEY_VARIABLE, "") if path is None else path.read_text("utf-8")
    if not secret.strip():
        raise click.UsageError(f"give a key, with --key-file or in {_KEY_VARIABLE}")
    if not secret.strip().isascii() or not secret.strip().isprintable():
        raise click.UsageError("the key is not one line of ASCII characters")
    return secret.strip()


def _check_url(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        parts = urlsplit(value)
        wrong = (
            parts.scheme not in ("http", "https") or not parts.hostname or (parts.port is not None and not parts.port)
        )
    except ValueError:
        wrong = True
    if wrong:
        raise click.BadParameter(f"a URL looks like {_DEFAULT_URL}")
    return value


@click.group("admin")
@click.option(
    "--url",
    envvar="LHTTP_ADMIN_URL",
    default=_DEFAULT_URL,
    show_default=True,
    callback=_check_url,
    help="URL of the admin side.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"File with the key. [default: the key itself in ${_KEY_VARIABLE}]",
)
@click.option("--ca-file", type=click.Path(path_type=Path, dir_okay=False), help="Trust these certificates (PEM).")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 600), default=10.0, show_default=True, help="Time limit in seconds."
)
@click.pass_context
def admin_command(
    context: click.Context, url: str, key_file: Path | None, ca_file: Path | None, timeout: float
) -> None:
    """
    Query and control a running server (twistd lhttp --admin).

    You need a key of the server. The scope of the key must include what the subcommand does.
    """
    context.obj = url, key_file, ca_file, timeout


def _write(method: Method, found: Any, as_json: bool) -> None:
    if as_json:
        write_line(json.dumps(found))
        return
    unanswered = found.get("unanswered", [])
    if method.columns:
        rows, *columns = method.columns
        write_line("\t".join(columns))
        for row in found.get(rows, []):
            write_line("\t".join(_cell(row.get(column)) for column in columns))
    else:
        for name, value in found.items():
            if name != "unanswered":
                write_line(f"{name}\t{_cell(value)}")
    if found.get("next"):
        say(f"there are more: add --cursor {escaped(found['next'])}")
    if found.get("more"):
        say("there are more messages: use --since or --before")
    if unanswered:
        say(f"nodes that did not answer: {', '.join(map(escaped, unanswered))}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    return escaped(value if isinstance(value, str) else json.dumps(value))


def _option(parameter: Parameter) -> click.Option:
    kind = parameter.schema["type"]
    if kind == "object":
        return click.Option(
            [f"--{parameter.name.rstrip('s')}", parameter.name],
            multiple=True,
            metavar="NAME:VALUE",
            help=f"{parameter.meaning} Repeatable.",
        )
    return click.Option(
        [f"--{parameter.name.replace('_', '-')}", parameter.name],
        type=_TYPES[kind],
        multiple=kind == "array",
        help=parameter.meaning,
    )


def _call(context: click.Context, method: Method, params: dict[str, Any], as_json: bool) -> int:
    """Call a method, print its answer, and return the exit status."""
    url, key_file, ca_file, timeout = context.obj
    try:
        found = call(url, _key(key_file), method.name, params, timeout=timeout, ca=ca_file)
    except (ConnectionError, TimeoutError, ssl.SSLError) as error:
        say(f"cannot connect to {url}: {error}; is a server with --admin running there?")
        return Exit.NOT_CONNECTED
    _write(method, found, as_json)
    return Exit.FAILED if found.get("unanswered") else Exit.OK


@admin_command.command("call")
@click.argument("method", type=click.Choice([method.name for method in METHODS]), metavar="METHOD")
@click.argument("params", default="{}")
@click.pass_context
def _any(context: click.Context, method: str, params: str) -> int:
    """
    Call any method of the API, and print the answer as JSON.

    PARAMS are the parameters as a JSON object, or - to read them from standard input.
    """
    try:
        told = json.loads(sys.stdin.read() if params == "-" else params)
    except ValueError as error:
        raise click.UsageError(f"PARAMS are not JSON: {error}") from None
    if not isinstance(told, dict):
        raise click.UsageError('PARAMS are a JSON object, such as {"channel": "news"}')
    return _call(context, BY_NAME[method], told, True)


def _subcommand(method: Method) -> click.Command:
    """Return the subcommand for a method. Required parameters are arguments, and those of ``whom`` are options."""
    params: list[click.Parameter] = []
    for parameter in method.parameters:
        if parameter.required and parameter.schema["type"] in ("string", "integer"):
            params.append(click.Argument([parameter.name], metavar=parameter.name.upper()))
        elif parameter.name != "body_base64":
            params.append(_option(parameter))
    params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print the answer as JSON."))

    @click.pass_context
    def run(context: click.Context, /, as_json: bool, **given: Any) -> int:
        told = {name: _value(name, value) for name, value in given.items() if value not in (None, ())}
        return _call(context, method, told, as_json)

    callback: Callable[..., int] = run
    return click.Command(method.command, params=params, callback=callback, help=method.summary)


def _value(name: str, value: Any) -> Any:
    if name == "headers":
        pairs = [text.partition(":") for text in value]
        if not all(separator for _, separator, _ in pairs):
            raise click.UsageError("a header looks like NAME:VALUE")
        return {header: content.strip() for header, _, content in pairs}
    return list(value) if isinstance(value, tuple) else value


for _method in METHODS:
    if _method.command:
        admin_command.add_command(_subcommand(_method))
