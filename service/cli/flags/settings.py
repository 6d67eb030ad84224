"""A flag for each setting; the most common ones have a short name besides.

The flags are made from the configuration's models, whose import takes half a second. So that comes
last: the short ones are completed, and shown by --help, without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.flags.command import Command, Option
from service.cli.flags.values import FILE, TEXT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from click.shell_completion import CompletionItem

    from service.config import Setting

_SHORT: dict[str, tuple[str, str, str]] = {
    "grpc.listen": (
        "--listen",
        "ADDRESS",
        "Listen here for gRPC: host:port or unix:/path; repeatable.",
    ),
    "admin.listen": (
        "--admin-listen",
        "ADDRESS",
        "Listen here for `kvatlas pods` and the like [default: 127.0.0.1:50052]; repeatable.",
    ),
    "metrics.listen": (
        "--metrics-listen",
        "ADDRESS",
        "Serve metrics at host:port; '': no metrics.",
    ),
    "discovery.pods": (
        "--pod",
        "URL",
        "Ask the model server at http://host:port what it is, and listen to it; repeatable.",
    ),
    "default_model": ("--default-model", "MODEL", "Model of pods whose topic names none."),
    "index.block_size": ("--block-size", "TOKENS", "Number of tokens of a block [default: 16]."),
    "index.hash_seed": ("--hash-seed", "SEED", "Seed of the block keys."),
    "processes": (
        "--processes",
        "COUNT",
        "Answer in so many processes, which share one index [default: 1].",
    ),
    "store.url": (
        "--index",
        "URL",
        "Share the index through this store: redis://host:port, valkey://... and more.",
    ),
    "index.limit": ("--index-limit", "SIZE", "Memory that the index may use, such as 2GiB."),
    "snapshot.path": ("--snapshot", "FILE", "Keep the index in this file across restarts."),
    "log.level": ("--log-level", "LEVEL", "One of debug, info, warning, error."),
    "log.format": ("--log-format", "FORMAT", "One of auto, human, json."),
}
"""Setting -> the short name of its flag, what to give, help."""

_OTHERS = "All other settings"
_REPEATABLE = {"grpc.listen", "admin.listen", "discovery.pods"}


class SettingsCommand(Command):
    """A command that takes every setting as a flag."""

    def __init__(self, name: str, *, params: Sequence[click.Parameter] = (), **how: Any) -> None:
        super().__init__(name, params=[*params, *_common()], **how)
        self._are_complete = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line, for which all flags are needed, unless it asks for help alone."""
        if not ctx.resilient_parsing and not (args and set(args) <= set(ctx.help_option_names)):
            self._complete()
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The flags that begin so."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("--") and ("." in incomplete or not found):
            self._complete()
            found = super().shell_complete(ctx, incomplete)
        return found

    def _complete(self) -> None:
        if not self._are_complete:
            self._are_complete = True
            self.params += _others()


def _common() -> Iterator[click.Parameter]:
    yield click.Option(
        ["--config"],
        type=FILE,
        metavar="FILE",
        help="Configuration file (TOML) [default: that of KVATLAS_CONFIG].",
    )
    yield click.Option(
        ["--bind"],
        multiple=True,
        type=TEXT,
        metavar="ENDPOINT",
        help="Let pods connect here to publish events; repeatable.",
    )
    yield click.Option(
        ["--connect"],
        multiple=True,
        type=TEXT,
        metavar="[POD=]ENDPOINT",
        help="Connect here to receive a pod's events; repeatable.",
    )
    for setting, (short, metavar, text) in _SHORT.items():
        long = f"--{setting.replace('_', '-')}"
        yield click.Option(
            [parameter(setting), *dict.fromkeys((short, long))],
            multiple=setting in _REPEATABLE,
            metavar=metavar,
            help=text,
        )
    yield click.Option(
        ["--help-all"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_help,
        help="Show this message with the flags of all settings and exit.",
    )


def _show_help(ctx: click.Context, _param: click.Parameter, is_given: bool) -> None:
    if is_given and not ctx.resilient_parsing:
        click.echo(ctx.get_help())
        ctx.exit()


def _others() -> Iterator[click.Parameter]:
    """The flags of the settings that have no short one."""
    from service.config import Configuration, settings_of  # slow

    for setting in settings_of(Configuration):
        if setting.name not in _SHORT:
            yield Option(
                parameter(setting.name),
                setting.flag,
                section=_OTHERS,
                multiple=setting.is_repeatable,
                metavar=_metavar(setting),
                help=setting.help,
            )


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return "|".join(setting.choices)
    if setting.is_json:
        return "JSON"
    return {bool: "BOOL", dict: "NAME=VALUE", Path: "FILE"}.get(setting.kind, "VALUE")


def parameter(setting: str) -> str:
    """The name under which a command has the value of a setting."""
    return setting.replace(".", "__")


def flag_name(setting: Setting) -> str:
    """The flag that people know the setting by."""
    return _SHORT[setting.name][0] if setting.name in _SHORT else setting.flag
