"""Lines of recorded runs -> frames, counts and requests."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

from kvatlas.v1 import scoring_pb2


def parts(line: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(part) for part in line["frames"]]


def frames_of(trace: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in trace if line["kind"] == "frame"]


def frame_counts(trace: list[dict[str, Any]], ranks: dict[str, int]) -> Counter[tuple[str, int]]:
    return Counter((line["pod"], ranks[line["pod"]]) for line in frames_of(trace))


def request_of(probe: dict[str, Any], packed: bool) -> scoring_pb2.ScoreRequest:
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
