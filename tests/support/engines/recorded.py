"""Traces of real engines: their frames, and the requests that were scored beside them."""

from __future__ import annotations

import gzip
import json
import struct
from collections import Counter
from typing import Any

from kvatlas.v1 import scoring_pb2

from support.paths import DATA


def read_trace(name: str) -> list[dict[str, Any]]:
    """The lines of a recorded trace."""
    with gzip.open(DATA / "traces" / f"{name}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def frames_of(trace: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a trace that are frames."""
    return [line for line in trace if line["kind"] == "frame"]


def frame_parts(line: dict[str, Any]) -> list[bytes]:
    """The parts of the message that a line recorded."""
    return [bytes.fromhex(part) for part in line["frames"]]


def frame_counts(trace: list[dict[str, Any]], ranks: dict[str, int]) -> Counter[tuple[str, int]]:
    """How many frames of each pod's rank a trace holds; `ranks`: pod -> its rank."""
    return Counter((line["pod"], ranks[line["pod"]]) for line in frames_of(trace))


def score_request_of(probe: dict[str, Any], packed: bool) -> scoring_pb2.ScoreRequest:
    """The request that asks about a recorded prompt; `packed`: as bytes instead of numbers."""
    request = scoring_pb2.ScoreRequest(
        model="sim/llama",
        lora_name=probe["lora_name"] or "",
        cache_salt=probe["cache_salt"] or "",
    )
    for item in probe["mm"]:
        request.prompt.multimodal_items.add(
            hash=item["identifier"], offset=item["offset"], length=item["length"]
        )
    tokens = probe["tokens"]
    if packed:
        request.prompt.packed_token_ids = struct.pack(f"<{len(tokens)}I", *tokens)
    else:
        request.prompt.token_ids.ids.extend(tokens)
    return request
