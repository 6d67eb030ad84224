"""Prompts as flags and files give them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kvatlas.v1 import routing_pb2, scoring_pb2

from service.cli.connection import UsageError

if TYPE_CHECKING:
    from service.cli.flags.command import Options

_IMAGE = re.compile(r"(?P<hash>.+)@(?P<offset>\d+)\+(?P<length>\d+)")
_RANK = re.compile(r"(?P<pod>.+)/(?P<rank>\d+)")
_LARGEST = 2**32 - 1


def score_request(options: Options) -> scoring_pb2.ScoreRequest:
    """What `kvatlas score` asks. Raises UsageError."""
    return scoring_pb2.ScoreRequest(
        model=options.model,
        prompt=_prompt(options),
        pods=options.pod,
        lora_name=options.lora,
        cache_salt=options.salt,
        only_holders=options.only_holders,
        max_pods=_uint32("--max-pods", options.max_pods),
        by_rank=options.by_rank,
        ranks=map(_rank, options.rank),
        tier_weights=dict(map(_weight, options.tier_weight)),
        budget_ms=_uint32("--budget-ms", options.budget_ms),
        want_handle=options.want_handle,
    )


def _prompt(options: Options) -> scoring_pb2.Prompt:
    prompt = scoring_pb2.Prompt(multimodal_items=map(_item, options.image))
    if options.text is not None:
        prompt.text = text_or_stdin(options.text)
    elif options.chat is not None:
        prompt.chat_completion = read(options.chat)
    elif options.messages is not None:
        prompt.messages = read(options.messages)
    elif options.completion is not None:
        prompt.completion = read(options.completion)
    elif options.packed is not None:
        prompt.packed_token_ids = _packed(options.packed)
    else:
        prompt.token_ids.ids.extend(_token_ids(text_or_stdin(options.tokens)))
    return prompt


def text_or_stdin(value: str) -> str:
    """The value itself, or standard input for `-`. Raises UsageError."""
    return read("-") if value == "-" else value


def read(name: str) -> str:
    """The text of a file, or of standard input for `-`. Raises UsageError."""
    try:
        return _bytes(name).decode()
    except (OSError, ValueError) as error:
        raise UsageError(_unreadable(name, error)) from None


def _packed(name: str) -> bytes:
    try:
        ids = _bytes(name)
    except (OSError, ValueError) as error:
        raise UsageError(_unreadable(name, error)) from None
    if len(ids) % 4:
        raise UsageError(f"--packed must be whole 32-bit integers, not {len(ids)} bytes")
    return ids


def _bytes(name: str) -> bytes:
    if name != "-":
        return Path(name).read_bytes()
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    return sys.stdin.buffer.read()


def _unreadable(name: str, error: Exception) -> str:
    where = "standard input" if name == "-" else name
    if isinstance(error, UnicodeDecodeError):
        return f"{where} is not UTF-8: {error.reason} at byte {error.start}"
    return f"cannot read {where}: {getattr(error, 'strerror', None) or error}"


def _token_ids(text: str) -> list[int]:
    try:
        ids = [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise UsageError(
            f"--tokens must be integers, separated by commas or spaces: {error}"
        ) from None
    if any(not 0 <= token <= _LARGEST for token in ids):
        raise UsageError(f"--tokens must be between 0 and {_LARGEST}")
    return ids


def _item(image: str) -> scoring_pb2.MultimodalItem:
    match = _IMAGE.fullmatch(image)
    if match is None:
        raise UsageError(
            f"--image must be HASH@OFFSET+LENGTH, for example 9f2c@103+40, not {image!r}"
        )
    offset, length = (_uint32("--image", int(match[part])) for part in ("offset", "length"))
    return scoring_pb2.MultimodalItem(hash=match["hash"], offset=offset, length=length)


def _rank(text: str) -> routing_pb2.PodRank:
    match = _RANK.fullmatch(text)
    if match is None:
        raise UsageError(f"--rank must be POD/RANK, for example 10.0.0.1:8000/3, not {text!r}")
    return routing_pb2.PodRank(pod=match["pod"], rank=_uint32("--rank", int(match["rank"])))


def _weight(text: str) -> tuple[str, float]:
    tier, _, weight = text.rpartition("=")
    try:
        number = float(weight)
    except ValueError:
        number = -1.0
    if not tier or not 0 <= number <= 1:
        raise UsageError(f"--tier-weight must be TIER=WEIGHT, from 0 to 1, not {text!r}")
    return tier, number


def _uint32(flag: str, number: int) -> int:
    if number > _LARGEST:
        raise UsageError(f"{flag}: {number} is more than {_LARGEST}")
    return number
