"""score, explain, tokenize."""

from __future__ import annotations

import click

from service.cli.flags.command import Command
from service.cli.flags.connection import call
from service.cli.flags.values import INTEGER_FROM_ZERO, TEXT

_SCORE_EPILOG = """\
examples:
  kvatlas score --model my-model --text 'Once upon a time'
  kvatlas score --model my-model --tokens 1,2,3,4 --pod 10.0.0.1:8000 --pod 10.0.0.2:8000
  seq 1 64 | kvatlas score --model my-model --tokens - --json
  kvatlas score --model my-model --chat request.json
  kvatlas score --model my-model --packed ids.bin --only-holders --max-pods 3

Only full blocks count: a prompt shorter than one block matches nothing. If a pod is listed under
"unknown pods", no events arrived under that name: compare it with `kvatlas pods`. If scores are
zero and you cannot tell why, run `kvatlas explain` with the same flags.
"""
_EXPLAIN_EPILOG = """\
examples:
  kvatlas explain --model my-model --chat request.json
  kvatlas explain --model my-model --text 'Once upon a time' --pod 10.0.0.1:8000

It takes the flags of `kvatlas score`, and says what became of the prompt, where the prefix of each
pod ends and why, and whether pods hold the prompt in another form: under another adapter or model,
with another salt, with one token more or less. It changes nothing.
"""
_TOKENIZE_EPILOG = """\
examples:
  kvatlas tokenize --model my-model --text 'Once upon a time'
  kvatlas tokenize --model my-model --chat request.json
  kvatlas tokenize --model my-model --text - --no-special-tokens < text.txt
"""

_BODIES = [
    ("--chat", "/v1/chat/completions"),
    ("--messages", "/v1/messages"),
    ("--completion", "/v1/completions"),
]
"""Flags for the body of a request, and where an engine takes it."""

PROMPTS = ("text", "chat", "messages", "completion", "tokens", "packed")
"""Flags of which a prompt has one."""


def commands() -> list[click.Command]:
    """The commands about prompts."""
    return [
        Command(
            "score",
            runs="service.cli.calling.scoring:score",
            summary="show how much of a prompt each pod holds",
            params=[*_model(), *_prompt(), *_request(), *call()],
            one_of=PROMPTS,
            epilog=_SCORE_EPILOG,
        ),
        Command(
            "explain",
            runs="service.cli.calling.explaining:explain",
            summary="say why a prompt has the scores that it has",
            params=[*_model(), *_prompt(), *_request(), *call()],
            one_of=PROMPTS,
            epilog=_EXPLAIN_EPILOG,
        ),
        Command(
            "tokenize",
            runs="service.cli.calling.tokenizing:tokenize",
            summary="show the token ids of a text, or of a chat and its text",
            params=[
                *_model(),
                _text("The text; -: read standard input."),
                _body("--chat", "/v1/chat/completions"),
                click.Option(
                    ["--no-special-tokens"],
                    is_flag=True,
                    help="Leave out the special tokens that the tokenizer adds.",
                ),
                *call(),
            ],
            one_of=("text", "chat"),
            epilog=_TOKENIZE_EPILOG,
        ),
    ]


def _model() -> list[click.Parameter]:
    return [
        click.Option(
            ["--model"], required=True, type=TEXT, metavar="NAME", help="Name of the base model."
        )
    ]


def _text(summary: str) -> click.Parameter:
    return click.Option(["--text"], type=TEXT, metavar="TEXT", help=summary)


def _body(flag: str, path: str) -> click.Parameter:
    return click.Option(
        [flag],
        type=click.Path(allow_dash=True),
        metavar="FILE",
        help=f"A request to {path}, as JSON; -: read standard input.",
    )


def _prompt() -> list[click.Parameter]:
    return [
        _text("The prompt as text; -: read standard input."),
        *(_body(flag, path) for flag, path in _BODIES),
        click.Option(
            ["--tokens"],
            metavar="IDS",
            type=TEXT,
            help="Token ids, separated by commas or spaces; -: read standard input.",
        ),
        click.Option(
            ["--packed"],
            type=click.Path(allow_dash=True),
            metavar="FILE",
            help="Token ids as consecutive 32-bit little-endian integers; -: read standard input.",
        ),
    ]


def _request() -> list[click.Parameter]:
    """The fields of ScoreRequest beside model and prompt."""
    return [
        _repeatable("--pod", "NAME", "Score only this pod; repeatable."),
        click.Option(["--lora"], default="", type=TEXT, metavar="NAME", help="LoRA adapter."),
        click.Option(["--salt"], default="", type=TEXT, metavar="SALT", help="Cache salt."),
        _repeatable(
            "--image",
            "HASH@OFFSET+LENGTH",
            "An image: its hash, index of its first token, number of tokens; repeatable.",
        ),
        _switch("--only-holders", "Only pods that hold at least one block."),
        _number("--max-pods", "COUNT", "Only so many pods, the best ones; 0: all."),
        _switch("--by-rank", "An entry for each data-parallel rank of a pod."),
        _repeatable("--rank", "POD/RANK", "Score this rank of a pod; repeatable."),
        _repeatable(
            "--tier-weight", "TIER=WEIGHT", "Weight of a block in this tier, 0 to 1; repeatable."
        ),
        _number("--budget-ms", "MS", "Answer what is known after so many milliseconds; 0: all."),
        _switch("--want-handle", "Ask for a handle, to record a routing or an outcome with."),
    ]


def _repeatable(flag: str, metavar: str, text: str) -> click.Parameter:
    return click.Option([flag], multiple=True, type=TEXT, metavar=metavar, help=text)


def _switch(flag: str, text: str) -> click.Parameter:
    return click.Option([flag], is_flag=True, help=text)


def _number(flag: str, metavar: str, text: str) -> click.Parameter:
    return click.Option([flag], default=0, type=INTEGER_FROM_ZERO, metavar=metavar, help=text)
