"""pods, top, health, version."""

from __future__ import annotations

import click

from service.cli.flags.command import Command, Group
from service.cli.flags.connection import call, metrics
from service.cli.flags.values import POSITIVE_INTEGER, POSITIVE_NUMBER, TEXT

_PODS_EPILOG = """\
examples:
  kvatlas pods
  kvatlas pods --watch
  kvatlas pods --model my-model --json
  kvatlas pods forget 10.0.0.1:8000
  kvatlas pods resync 10.0.0.1:8000
  kvatlas pods discovered

TRUST says how far to rely on a pod's blocks, and why not fully: exact; partial (it may hold more);
recovering or degraded (some may be gone); stale (nothing confirms them); unknown (no events yet).
"""
_REGISTER_EPILOG = """\
examples:
  kvatlas pods register http://10.0.0.1:8000
  kvatlas pods register http://10.0.0.1:8000 --role decode --ttl 60

The service has to allow it: discovery.registration = true.
"""
_TOP_EPILOG = """\
examples:
  kvatlas top
  kvatlas top --interval 5
  kvatlas top --once          # one picture, also where there is no terminal

Pods come from the service's administration; rates and latencies from its metrics, if they can be
read. LAG is how long the last event has waited from its engine to the index.
"""
_VERSION_EPILOG = """\
The version of the service comes from its metrics. --json prints {"client": ..., "server": ...};
the server is null if it cannot be reached.
"""
_HEALTH_EPILOG = """\
exit status:
  0  the service is ready
  1  it is not, or it cannot be reached
"""


def commands() -> list[click.Command]:
    """The commands about a running service."""
    return [
        Group(
            "pods",
            runs="service.cli.calling.fleet:pods",
            summary="list the pods and what they hold; forget or resync one",
            params=[
                _model(),
                click.Option(
                    ["--watch"], is_flag=True, help="Go on, and print every change; Ctrl-C ends it."
                ),
                *call(administration=True),
            ],
            commands=_actions(),
            epilog=_PODS_EPILOG,
            subcommand_metavar="ACTION ...",
        ),
        _top(),
        Command(
            "health",
            runs="service.cli.calling.health:health",
            summary="exit with status 0 if the service is ready",
            params=call(seconds=2.0),
            epilog=_HEALTH_EPILOG,
        ),
        Command(
            "version",
            runs="service.cli.calling.versions:version",
            summary="show the version of this command, and that of the service",
            params=[metrics(), *call(seconds=2.0)],
            epilog=_VERSION_EPILOG,
        ),
    ]


def _model() -> click.Parameter:
    return click.Option(
        ["--model"],
        default="",
        type=TEXT,
        metavar="NAME",
        help="Only pods that serve this model.",
    )


def _actions() -> list[click.Command]:
    return [
        *(
            Command(
                name,
                runs=f"service.cli.calling.fleet:{name}",
                summary=summary,
                params=[
                    click.Argument(["pod"], type=TEXT, metavar="POD"),
                    *call(administration=True),
                ],
            )
            for name, summary in (
                ("forget", "remove a pod from the index and the scores at once"),
                ("resync", "learn again what a pod holds, from its replay socket"),
                ("unregister", "undo the registration of a pod, and forget it"),
            )
        ),
        _register(),
        Command(
            "discovered",
            runs="service.cli.calling.fleet:discovered",
            summary="list the pods that were discovered, and what their engines say",
            params=call(administration=True),
        ),
    ]


def _register() -> click.Command:
    return Command(
        "register",
        runs="service.cli.calling.fleet:register",
        summary="let the service ask a pod what it is, and listen to it",
        params=[
            click.Argument(["url"], type=TEXT, metavar="URL"),
            click.Option(
                ["--model"], default="", type=TEXT, metavar="NAME", help="The model it serves."
            ),
            click.Option(
                ["--role"],
                multiple=True,
                type=TEXT,
                metavar="ROLE",
                help="Such as prefill or decode; repeatable.",
            ),
            click.Option(["--node"], default="", type=TEXT, metavar="NAME", help="Its node."),
            click.Option(
                ["--ttl"],
                type=POSITIVE_NUMBER,
                metavar="SECONDS",
                help="Forget it then, unless it is registered again.",
            ),
            *call(administration=True),
        ],
        epilog=_REGISTER_EPILOG,
    )


def _top() -> click.Command:
    return Command(
        "top",
        runs="service.cli.calling.top:top",
        summary="show pods, blocks, event rates and latencies, live",
        params=[
            _model(),
            click.Option(
                ["--interval"],
                type=POSITIVE_NUMBER,
                default=2.0,
                show_default=True,
                metavar="SECONDS",
                help="How often the picture is renewed.",
            ),
            click.Option(["--once"], is_flag=True, help="Print one picture and end."),
            click.Option(
                ["--rows"],
                type=POSITIVE_INTEGER,
                metavar="COUNT",
                help="Ranks to show, at most [default: as many as fit].",
            ),
            metrics(),
            *call(administration=True),
        ],
        epilog=_TOP_EPILOG,
    )
