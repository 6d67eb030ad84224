"""Flags and help of the commands that call a running service."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from service.cli import client, recordings
from service.cli.arguments import number_from_zero, positive_integer, positive_number
from service.cli.connection import add_connection

_SCORE_EPILOG = """\
examples:
  kvatlas score --model my-model --text 'Once upon a time'
  kvatlas score --model my-model --tokens 1,2,3,4 --pod 10.0.0.1:8000 --pod 10.0.0.2:8000
  seq 1 64 | kvatlas score --model my-model --tokens - --json
  kvatlas score --model my-model --chat request.json

Only full blocks count: a prompt shorter than one block matches nothing. If a pod is listed under
"unknown pods", no events arrived under that name: compare it with `kvatlas pods`.
"""
_PODS_EPILOG = """\
examples:
  kvatlas pods
  kvatlas pods --model my-model --json
  kvatlas pods forget 10.0.0.1:8000
  kvatlas pods resync 10.0.0.1:8000

TRUST says how far to rely on a pod's blocks, and why not fully: exact; partial (it may hold more);
recovering or degraded (some may be gone); stale (nothing confirms them); unknown (no events yet).
"""
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


def add_clients(commands: Any) -> None:
    """Add these commands to `commands`. A parsed one has the function that runs it as `run`."""
    common = _common()
    _add_score(commands, common)
    _add_tokenize(commands, common)
    _add_pods(commands)
    _add_record(commands)
    _add_replay(commands)
    _add_health(commands)


def _add_score(commands: Any, common: argparse.ArgumentParser) -> None:
    score = commands.add_parser(
        "score",
        parents=[common],
        help="show how much of a prompt each pod holds",
        epilog=_SCORE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument("--model", required=True, help="name of the base model")
    prompt = score.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--text", help="the prompt as text; -: read standard input")
    _add_chat(prompt)
    prompt.add_argument(
        "--tokens",
        metavar="IDS",
        help="token ids, separated by commas or spaces; -: read standard input",
    )
    score.add_argument("--pod", action="append", default=[], help="score only this pod; repeatable")
    score.add_argument("--lora", default="", metavar="NAME", help="LoRA adapter of the request")
    score.add_argument("--salt", default="", help="cache salt of the request")
    score.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="HASH@OFFSET+LENGTH",
        help="an image: its hash, index of its first token, number of tokens; repeatable",
    )
    score.set_defaults(run=client.score)


def _add_tokenize(commands: Any, common: argparse.ArgumentParser) -> None:
    tokenize = commands.add_parser(
        "tokenize", parents=[common], help="show the token ids of a text, or of a chat and its text"
    )
    tokenize.add_argument("--model", required=True, help="model whose tokenizer is used")
    text = tokenize.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", help="the text; -: read standard input")
    _add_chat(text)
    tokenize.add_argument(
        "--no-special-tokens",
        action="store_true",
        help="leave out the special tokens that the tokenizer adds",
    )
    tokenize.set_defaults(run=client.tokenize)


def _add_health(commands: Any) -> None:
    health = commands.add_parser("health", help="exit with status 0 if the service is ready")
    add_connection(health)
    health.add_argument(
        "--timeout",
        type=positive_number,
        default=2.0,
        metavar="SECONDS",
        help="how long to wait for the answer (default: %(default)s)",
    )
    health.set_defaults(run=client.health)


def _common(*, administration: bool = False, given_before: bool = False) -> argparse.ArgumentParser:
    """The flags that all calls have.

    Args:
        administration: whether they go to the listener for operators.
        given_before: a parent command has them too; if not repeated they keep the values it parsed.
    """
    common = argparse.ArgumentParser(add_help=False)
    flags = [
        *add_connection(common, administration=administration),
        common.add_argument("--json", action="store_true", help="print JSON instead of a table"),
        common.add_argument(
            "--timeout",
            type=positive_number,
            default=5.0,
            metavar="SECONDS",
            help="how long to wait for the answer (default: 5)",
        ),
    ]
    if given_before:
        for flag in flags:
            flag.default = argparse.SUPPRESS
    return common


def _add_chat(group: Any) -> None:
    group.add_argument(
        "--chat",
        metavar="FILE",
        help="a request to /v1/chat/completions, as JSON; -: read standard input",
    )


def _add_pods(commands: Any) -> None:
    pods = commands.add_parser(
        "pods",
        parents=[_common(administration=True)],
        help="list the pods and what they hold; forget or resync one",
        epilog=_PODS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pods.add_argument("--model", default="", help="only pods that serve this model")
    pods.set_defaults(run=client.pods)
    actions = pods.add_subparsers(title="actions", metavar="ACTION")
    for name, run, summary in (
        ("forget", client.forget, "remove a pod from the index and the scores at once"),
        ("resync", client.resync, "learn again what a pod holds, from its replay socket"),
    ):
        action = actions.add_parser(
            name,
            parents=[_common(administration=True, given_before=True)],
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
        )
        action.add_argument("pod", help="name of the pod, as `kvatlas pods` shows it")
        action.set_defaults(run=run)


def _add_record(commands: Any) -> None:
    record = commands.add_parser(
        "record",
        help="write the frames that arrive at the service to a file",
        epilog=_RECORD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_connection(record, administration=True)
    record.add_argument(
        "--endpoint", default="", help="only frames that arrive at this configured endpoint"
    )
    record.add_argument(
        "--output",
        default="-",
        metavar="FILE",
        help="compressed if it ends in .gz (default: stdout)",
    )
    record.add_argument(
        "--frames", type=positive_integer, metavar="COUNT", help="stop after this many frames"
    )
    record.add_argument(
        "--seconds", type=positive_number, metavar="SECONDS", help="stop after this time"
    )
    record.set_defaults(run=recordings.record)


def _add_replay(commands: Any) -> None:
    replay = commands.add_parser(
        "replay",
        help="publish the frames of a recording, as the engines did",
        epilog=_REPLAY_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument(
        "file", type=Path, metavar="FILE", help="a file that `kvatlas record` wrote"
    )
    where = replay.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--connect", metavar="ENDPOINT", help="an endpoint that a service binds for events"
    )
    where.add_argument("--bind", metavar="ENDPOINT", help="an endpoint that a service connects to")
    replay.add_argument("--endpoint", default="", help="only frames recorded at this endpoint")
    replay.add_argument(
        "--speed",
        type=number_from_zero,
        default=0.0,
        help="1: as fast as recorded; 0: as fast as the service reads",
    )
    replay.add_argument(
        "--timeout",
        type=positive_number,
        default=30.0,
        metavar="SECONDS",
        help="how long to wait for the service",
    )
    replay.set_defaults(run=recordings.replay)
