"""The commands that speak to a running service, with their flags and help."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from service.cli import client, recordings

_SCORE_EPILOG = """\
examples:
  kvatlas score --model my-model --text 'Once upon a time'
  kvatlas score --model my-model --tokens 1,2,3,4 --pod 10.0.0.1:8000 --pod 10.0.0.2:8000
  seq 1 64 | kvatlas score --model my-model --tokens - --json
  kvatlas score --model my-model --chat request.json

Only full blocks count: a prompt shorter than one block matches nothing. A pod listed under
"unknown pods" has never been heard of under that name: compare with `kvatlas pods`.
"""
_PODS_EPILOG = """\
examples:
  kvatlas pods
  kvatlas pods --model my-model --json
  kvatlas pods forget 10.0.0.1:8000
  kvatlas pods resync 10.0.0.1:8000

TRUST says how much to believe what a pod is said to hold, and why not more: exact; partial (it may
hold more); recovering or degraded (some of it may be gone); stale (silent); unknown (never heard).
"""
_RECORD_EPILOG = """\
examples:
  kvatlas record --output frames.jsonl.gz --seconds 60
  kvatlas record --endpoint tcp://10.0.0.1:5557 --frames 10
"""
_REPLAY_EPILOG = """\
examples:
  Into a service that runs with --bind 'tcp://*:5557':
      kvatlas replay frames.jsonl.gz --connect tcp://localhost:5557
  To a service that connects (--connect tcp://this-host:5557):
      kvatlas replay frames.jsonl.gz --bind 'tcp://*:5557' --speed 1

The pods of a recording should be strangers to the service: to one that hears them live, their
numbers go backward, and it takes them for restarted.
"""


def add_clients(commands: Any) -> None:
    """Add them all to `commands`; a parsed one has its function as `run`."""
    common = _common()
    score = commands.add_parser(
        "score",
        parents=[common],
        help="how much of a prompt does each pod hold?",
        epilog=_SCORE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument("--model", required=True)
    prompt = score.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--text", help="the prompt; - reads standard input")
    _add_chat(prompt)
    prompt.add_argument(
        "--tokens", metavar="IDS", help="ids between commas or spaces; - reads standard input"
    )
    score.add_argument("--pod", action="append", default=[], help="only this pod; repeatable")
    score.add_argument("--lora", default="", metavar="NAME", help="LoRA adapter")
    score.add_argument("--salt", default="", help="cache salt")
    score.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="HASH@OFFSET+LENGTH",
        help="multimodal item; repeatable",
    )
    score.set_defaults(run=client.score)
    tokenize = commands.add_parser(
        "tokenize", parents=[common], help="token ids of a text, or of a chat and its text"
    )
    tokenize.add_argument("--model", required=True)
    given = tokenize.add_mutually_exclusive_group(required=True)
    given.add_argument("--text", help="the text; - reads standard input")
    _add_chat(given)
    tokenize.add_argument(
        "--no-special-tokens", action="store_true", help="leave out those the tokenizer adds"
    )
    tokenize.set_defaults(run=client.tokenize)
    _add_pods(commands, common)
    _add_recordings(commands)
    health = commands.add_parser("health", help="exit status 0 if a service is ready")
    _add_server(health)
    health.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS")
    health.set_defaults(run=client.health)


def _common(*, given_before: bool = False) -> argparse.ArgumentParser:
    """Flags that calls have in common; those `given_before` keep their values if not repeated."""
    common = argparse.ArgumentParser(add_help=False)
    flags = [
        _add_server(common),
        common.add_argument("--json", action="store_true", help="print JSON instead of a table"),
        common.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS"),
    ]
    if given_before:
        for flag in flags:
            flag.default = argparse.SUPPRESS
    return common


def _add_chat(group: Any) -> None:
    group.add_argument(
        "--chat",
        metavar="FILE",
        help="a request to /v1/chat/completions as JSON; - reads standard input",
    )


def _add_server(parser: argparse.ArgumentParser) -> argparse.Action:
    return parser.add_argument(
        "--server",
        default="localhost:50051",
        metavar="ADDRESS",
        help="host:port or unix:/path of a running service (usually localhost:50051)",
    )


def _add_pods(commands: Any, common: argparse.ArgumentParser) -> None:
    pods = commands.add_parser(
        "pods",
        parents=[common],
        help="the pods, what they hold, how well it is known; forget or resync one",
        epilog=_PODS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pods.add_argument("--model", default="", help="only pods that serve this model")
    pods.set_defaults(run=client.pods)
    actions = pods.add_subparsers(title="actions", metavar="ACTION")
    for name, run, what in (
        ("forget", client.forget, "drop all that is known of a pod, at once"),
        ("resync", client.resync, "learn anew what a pod holds, from its replay socket"),
    ):
        action = actions.add_parser(
            name,
            parents=[_common(given_before=True)],
            help=what,
            description=what[0].upper() + what[1:] + ".",
        )
        action.add_argument("pod", help="its name, as `kvatlas pods` shows it")
        action.set_defaults(run=run)


def _add_recordings(commands: Any) -> None:
    record = commands.add_parser(
        "record",
        help="keep the frames that arrive at a service in a file",
        epilog=_RECORD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_server(record)
    record.add_argument("--endpoint", default="", help="only what arrives there, as configured")
    record.add_argument(
        "--output", default="-", metavar="FILE", help="gzipped if it ends in .gz (default: stdout)"
    )
    record.add_argument("--frames", type=int, metavar="COUNT", help="stop after so many")
    record.add_argument("--seconds", type=float, help="stop after so long")
    record.set_defaults(run=recordings.record)
    replay = commands.add_parser(
        "replay",
        help="publish the frames of a file, as the engines did",
        epilog=_REPLAY_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument("file", type=Path, metavar="FILE", help="what `kvatlas record` wrote")
    where = replay.add_mutually_exclusive_group(required=True)
    where.add_argument("--connect", metavar="ENDPOINT", help="where a service has bound its events")
    where.add_argument("--bind", metavar="ENDPOINT", help="where a service connects to")
    replay.add_argument("--endpoint", default="", help="only frames that had arrived there")
    replay.add_argument(
        "--speed", type=float, default=0.0, help="1: as recorded; 0: as fast as they are taken"
    )
    replay.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="wait so long for a listener"
    )
    replay.set_defaults(run=recordings.replay)
