"""Commands as click has them, which import what runs them when they run."""

from __future__ import annotations

import gc
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Sequence


class Options(SimpleNamespace):
    """The values of a command's flags, by name."""

    def __getattr__(self, name: str) -> Any:
        """For type checkers: click made the names."""
        raise AttributeError(name)


class Option(click.Option):
    """A flag that --help shows among others of its kind, under their own title."""

    def __init__(self, *names: str, section: str = "", **how: Any) -> None:
        super().__init__(names, **how)
        self.section = section


class _Shown(click.Command):
    """A command with sections of flags, and an epilog that keeps its lines."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags."""
        sections: dict[str, list[tuple[str, str]]] = {"": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                section = getattr(param, "section", "")
                sections.setdefault(section, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title or "Options"):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the epilog as it is."""
        if self.epilog:
            formatter.write("\n" + self.epilog.rstrip("\n") + "\n")


class Command(_Shown):
    """A command, and the function that runs it.

    Args:
        name: of the command.
        runs: the module and function that run it: `service.cli.serving.serve:serve`. It takes the
            options and returns the exit status.
        summary: what it does, in one line.
        params: its flags and arguments.
        one_of: names of flags of which exactly one must be given.
        epilog: examples and the like, shown as they are.
    """

    def __init__(
        self,
        name: str,
        *,
        runs: str,
        summary: str,
        params: Sequence[click.Parameter] = (),
        one_of: Sequence[str] = (),
        epilog: str = "",
    ) -> None:
        super().__init__(
            name, params=list(params), help=_sentence(summary), short_help=summary, epilog=epilog
        )
        self._runs = runs
        self._one_of = one_of

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; returns its exit status."""
        _check_one_of(ctx, self._one_of)
        return _run(self._runs, ctx)


class Group(_Shown, click.Group):
    """Commands under one name. With `runs` it is a command itself, if none of them is named."""

    def __init__(
        self,
        name: str,
        *,
        summary: str,
        commands: Sequence[click.Command],
        runs: str | None = None,
        params: Sequence[click.Parameter] = (),
        epilog: str = "",
        subcommand_metavar: str = "COMMAND ...",
    ) -> None:
        super().__init__(
            name,
            params=list(params),
            commands=commands,
            help=_sentence(summary),
            short_help=summary,
            epilog=epilog,
            invoke_without_command=runs is not None,
            no_args_is_help=runs is None,
            subcommand_metavar=f"[{subcommand_metavar}]" if runs else subcommand_metavar,
            callback=self._run_alone,
            context_settings={"max_content_width": 100},
        )
        self._runs = runs

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The commands, in the order in which they are declared."""
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags and the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def _run_alone(self, **_: Any) -> Any:
        ctx = click.get_current_context()
        if self._runs is None or ctx.invoked_subcommand is not None:
            return None
        return _run(self._runs, ctx)


def _run(function: str, ctx: click.Context) -> Any:
    module, _, name = function.partition(":")
    run = getattr(import_module(module), name)
    gc.enable()  # it was off while the command was found and imported
    return run(_options(ctx))


def _options(ctx: click.Context) -> Options:
    """The values of this command, and those that were given to the groups before it."""
    values = _options(ctx.parent).__dict__ if ctx.parent is not None else {}
    for name, value in ctx.params.items():
        is_given = ctx.get_parameter_source(name) not in {None, ParameterSource.DEFAULT}
        if is_given or name not in values:
            values[name] = value
    return Options(**values)


def _check_one_of(ctx: click.Context, names: Sequence[str]) -> None:
    given = [f"--{name}" for name in names if ctx.params[name] is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} cannot be given together", ctx)
    if names and not given:
        raise click.UsageError(f"one of {', '.join(f'--{name}' for name in names)} is needed", ctx)


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."
