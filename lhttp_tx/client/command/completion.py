"""
``lhttp completion``: prints a script with which a shell completes the command.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from lhttp_tx.client.command.running import Exit

__all__ = ["completion_command"]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> int:
    """
    Print a script that lets a shell complete commands and options.

    bash: put 'eval "$(lhttp completion bash)"' into ~/.bashrc. zsh: the same with zsh, into ~/.zshrc. fish: write the
    script to ~/.config/fish/completions/lhttp.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    click.echo(kind(context.find_root().command, {}, "lhttp", "_LHTTP_COMPLETE").source())
    return Exit.OK
