"""Completes commands in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from service.cli.flags.command import Command

VARIABLE = "_KVATLAS_COMPLETE"
"""What a shell asks for, when it completes a command."""

_EPILOG = """\
examples:
  bash, in ~/.bashrc:                     source <(kvatlas completion bash)
  zsh, in ~/.zshrc:                       source <(kvatlas completion zsh)
  fish:   kvatlas completion fish > ~/.config/fish/completions/kvatlas.fish
"""


def command() -> click.Command:
    """The command that prints what a shell needs."""
    return Command(
        "completion",
        runs="service.cli.flags.completion:print_script",
        summary="print what bash, zsh or fish needs to complete commands",
        params=[click.Argument(["shell"], type=click.Choice(["bash", "zsh", "fish"]))],
        epilog=_EPILOG,
    )


def print_script(options: object) -> int:
    """`kvatlas completion`."""
    shell: str = options.shell  # type: ignore[attr-defined]
    kind = get_completion_class(shell)
    assert kind is not None, shell  # noqa: S101 - the argument is one of its names
    click.echo(kind(click.Command("kvatlas"), {}, "kvatlas", VARIABLE).source())
    return 0
