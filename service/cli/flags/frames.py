"""record, replay."""

from __future__ import annotations

import click

from service.cli.flags.command import Command
from service.cli.flags.connection import connection
from service.cli.flags.values import FILE, NUMBER_FROM_ZERO, POSITIVE_INTEGER, POSITIVE_NUMBER, TEXT

_RECORD_EPILOG = """\
examples:
  kvatlas record --output frames.jsonl.gz --seconds 60
  kvatlas record --endpoint tcp://10.0.0.1:5557 --frames 10

A recording holds the token ids of the prompts that the pods served, and so their texts. Keep it as
you keep the prompts themselves.
"""
_REPLAY_EPILOG = """\
examples:
  Into a service that runs with --bind 'tcp://*:5557':
      kvatlas replay frames.jsonl.gz --connect tcp://localhost:5557
  To a service that connects (--connect tcp://this-host:5557):
      kvatlas replay frames.jsonl.gz --bind 'tcp://*:5557' --speed 1

The service must not receive live events of the recorded pods: it would see their sequence numbers
go backward, and conclude that the pods have restarted.
"""


def commands() -> list[click.Command]:
    """The commands about frames."""
    return [
        Command(
            "record",
            runs="service.cli.calling.recording:record",
            summary="write the frames that arrive at the service to a file",
            params=[*_what_to_record(), *connection(administration=True)],
            epilog=_RECORD_EPILOG,
        ),
        Command(
            "replay",
            runs="service.cli.serving.replaying:replay",
            summary="publish the frames of a recording, as the engines did",
            params=_what_to_replay(),
            one_of=("connect", "bind"),
            epilog=_REPLAY_EPILOG,
        ),
    ]


def _what_to_record() -> list[click.Parameter]:
    return [
        click.Option(
            ["--endpoint"],
            default="",
            type=TEXT,
            help="Only frames that arrive at this configured endpoint.",
        ),
        click.Option(
            ["--output"],
            default="-",
            type=click.Path(),
            metavar="FILE",
            help="Compressed if it ends in .gz [default: standard output].",
        ),
        click.Option(
            ["--frames"],
            type=POSITIVE_INTEGER,
            metavar="COUNT",
            help="Stop after this many frames.",
        ),
        click.Option(
            ["--seconds"], type=POSITIVE_NUMBER, metavar="SECONDS", help="Stop after this time."
        ),
    ]


def _what_to_replay() -> list[click.Parameter]:
    return [
        click.Argument(["file"], type=FILE, metavar="FILE"),
        click.Option(
            ["--connect"],
            type=TEXT,
            metavar="ENDPOINT",
            help="An endpoint that a service binds for events.",
        ),
        click.Option(
            ["--bind"],
            type=TEXT,
            metavar="ENDPOINT",
            help="An endpoint that a service connects to.",
        ),
        click.Option(
            ["--endpoint"], default="", type=TEXT, help="Only frames recorded at this endpoint."
        ),
        click.Option(
            ["--speed"],
            type=NUMBER_FROM_ZERO,
            default=0.0,
            metavar="FACTOR",
            help="1: as fast as recorded; 0, the default: as fast as the service reads.",
        ),
        click.Option(
            ["--timeout"],
            type=POSITIVE_NUMBER,
            default=30.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for the service.",
        ),
    ]
