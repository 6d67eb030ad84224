"""The `kvatlas` command: runs one subcommand, returns its exit status."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from service.cli.flags import completion, fleet, frames, prompts, service
from service.cli.flags.command import Group
from service.terminal import complain

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPILOG = """\
Start with `kvatlas demo`. Every command has its own --help.

KVATLAS_SERVER and KVATLAS_ADMIN_SERVER name the service that commands call, and its administration.
Exit status: 0; 1: it failed; 2: the flags or the configuration are wrong; 130: it was interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    1: it failed; 2: its flags or configuration are wrong; 130: it was interrupted.
    """
    try:
        status = _run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read what was printed has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # the disk is full, and the like
        complain(str(error))
        return 1
    return status


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result: Any = command().main(
            None if arguments is None else list(arguments),
            prog_name="kvatlas",
            complete_var=completion.VARIABLE,
            standalone_mode=False,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "kvatlas"
        complain(f"{error.format_message().rstrip('.')} (see {where} --help)")
        return 2
    except (click.Abort, KeyboardInterrupt):
        return 130
    return int(result or 0)


def command() -> click.Group:
    """The command with all its subcommands."""
    return Group(
        "kvatlas",
        summary="says how much of a prompt's prefix each pod already holds in its KV cache",
        params=[
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_print_version,
                help="Show the version and exit.",
            )
        ],
        commands=[
            *service.commands(),
            *prompts.commands(),
            *fleet.commands(),
            *frames.commands(),
            *service.tools(),
            completion.command(),
        ],
        epilog=_EPILOG,
    )


def _print_version(ctx: click.Context, _param: click.Parameter, is_given: bool) -> None:
    if is_given and not ctx.resilient_parsing:
        from importlib.metadata import version  # needed here alone

        click.echo(f"kvatlas {version('kvatlas')}")
        ctx.exit()
