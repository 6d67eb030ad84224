"""serve, check, config show, demo, resolve-tokenizer."""

from __future__ import annotations

import click

from service.cli.flags.command import Command, Group
from service.cli.flags.connection import connection
from service.cli.flags.settings import SettingsCommand
from service.cli.flags.values import FILE, POSITIVE_INTEGER, POSITIVE_NUMBER, TEXT

_SERVE_EPILOG = """\
examples:
  Let pods connect to port 5557 and publish as kv@<pod>@<model> (vLLM: --kv-events-config
  '{"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "tcp://this-host:5557",
    "topic": "kv@10.0.0.1:8000@my-model"}'):
      kvatlas serve --bind 'tcp://*:5557'
  Connect to two pods:
      kvatlas serve --connect 10.0.0.1:8000=tcp://10.0.0.1:5557 \\
                    --connect 10.0.0.2:8000=tcp://10.0.0.2:5557 --default-model my-model
  Take everything from a file, but listen elsewhere:
      kvatlas serve --config kvatlas.toml --listen 127.0.0.1:0

Every setting has a flag with its name, such as --grpc.drain-seconds 5 or --limits.pods 100; lists
take it several times, [[sources]] and [[models]] as JSON. --help-all lists them all.

Flags override the environment (KVATLAS_INDEX__BLOCK_SIZE=32, KVATLAS_SOURCES='[{...}]'), which
overrides the file (--config or KVATLAS_CONFIG). docs/CONFIGURATION.md has every setting.
"""
_CONFIG_EPILOG = """\
examples:
  kvatlas config show
  KVATLAS_INDEX__BLOCK_SIZE=32 kvatlas config show --changed
  kvatlas config show --config kvatlas.toml --json

It takes the flags of `kvatlas serve`. FROM says where a value comes from: the default, the file,
the variable or the flag of that name. Passwords are not shown. --json prints an object: setting ->
{"value": ..., "from": "default|file|environment|flag", "name": "of the file, variable or flag"}.
"""
_DEMO_EPILOG = """\
examples:
  kvatlas demo
  kvatlas serve --bind 'tcp://*:5557' &
  kvatlas demo --into tcp://localhost:5557 --endless     # beside it: kvatlas top, kvatlas pods
"""
_RESOLVE_EPILOG = """\
example:
  kvatlas resolve-tokenizer /models/Mistral-7B-v0.1 /models/resolved/Mistral-7B-v0.1

Transformers builds some tokenizers anew from their vocabulary, for example those of the Llama 2
family: their tokenizer.json alone gives other ids in some places. Write such a tokenizer with this
command, and configure the directory that it wrote.
"""


def commands() -> list[click.Command]:
    """The commands that run a service, or prepare it."""
    return [
        SettingsCommand(
            "serve",
            runs="service.cli.serving.serve:serve",
            summary="run the service",
            params=[click.Option(["--process"], hidden=True)],  # see service.processes
            epilog=_SERVE_EPILOG,
        ),
        SettingsCommand(
            "check",
            runs="service.cli.serving.check:check",
            summary="validate a configuration without starting the service",
            epilog=_SERVE_EPILOG.replace("kvatlas serve", "kvatlas check"),
        ),
        Group("config", summary="show the configuration", commands=[_show()]),
    ]


def tools() -> list[click.Command]:
    """The commands that need no service."""
    return [
        _demo(),
        Command(
            "resolve-tokenizer",
            runs="service.cli.serving.resolving:resolve",
            summary="write a model's tokenizer as its engine runs it (needs transformers)",
            params=[
                click.Argument(["source"], type=FILE),
                click.Argument(["target"], type=FILE),
            ],
            epilog=_RESOLVE_EPILOG,
        ),
    ]


def _demo() -> click.Command:
    return Command(
        "demo",
        runs="service.cli.serving.demo:demo",
        summary="run simulated pods and a short workload, and show its scores",
        params=[
            _count("--pods", "Number of pods."),
            _count("--turns", "Turns of each chat."),
            click.Option(
                ["--into"],
                type=TEXT,
                metavar="ENDPOINT",
                help="Publish to a running service, at the endpoint that it binds, and ask it "
                "for scores.",
            ),
            click.Option(["--endless"], is_flag=True, help="With --into: go on until Ctrl-C."),
            click.Option(
                ["--rate"],
                type=POSITIVE_NUMBER,
                default=5.0,
                show_default=True,
                metavar="COUNT",
                help="With --into: requests in a second.",
            ),
            *connection(),
        ],
        epilog=_DEMO_EPILOG,
    )


def _show() -> click.Command:
    return SettingsCommand(
        "show",
        runs="service.cli.serving.settings:show_configuration",
        summary="show the value of every setting, and where it comes from",
        params=[
            click.Option(["--json"], is_flag=True, help="Print JSON instead of a table."),
            click.Option(["--changed"], is_flag=True, help="Leave out the defaults."),
        ],
        epilog=_CONFIG_EPILOG,
    )


def _count(flag: str, text: str) -> click.Parameter:
    return click.Option(
        [flag], type=POSITIVE_INTEGER, default=3, show_default=True, metavar="COUNT", help=text
    )
