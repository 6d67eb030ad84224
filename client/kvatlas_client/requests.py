"""Makes the messages that are sent: prompts and their options -> ScoreRequest and the like."""

from __future__ import annotations

import array
import json
import sys
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from kvatlas.v1.routing_pb2 import PodRank, RecordRoutingRequest, ReportOutcomeRequest
from kvatlas.v1.scoring_pb2 import MultimodalItem, Prompt, ScoreRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Body = str | bytes | dict[str, Any]
"""The body of a request to a model server, as it is sent there or before it is made JSON."""


class ScoreOptions(TypedDict, total=False):
    """The fields of ScoreRequest besides the prompt, by their names."""

    pods: Iterable[str]
    """Names of the pods to score. None: every pod that serves the model."""
    ranks: Iterable[tuple[str, int]]
    """Data-parallel ranks to score: name of the pod, number of the rank."""
    by_rank: bool
    """Answer an entry for each rank of a pod."""
    only_holders: bool
    """Answer only the pods that hold something of the prompt."""
    max_pods: int
    """Answer at most so many pods, the best ones. 0: all."""
    lora_name: str
    """The adapter that the request will run with. Empty: the base model."""
    cache_salt: str
    """The salt of the request. Empty: that of the body, or none."""
    tier_weights: Mapping[str, float]
    """Tier -> weight of a block in it, in place of the configured ones."""
    budget_ms: int
    """Milliseconds after which the answer is sent, as far as it has got. 0: no such limit."""
    want_handle: bool
    """Answer a handle, with which to tell what became of the request."""


def score_request(
    model: str, prompt: Prompt | Iterable[int], **options: Unpack[ScoreOptions]
) -> ScoreRequest:
    """Return the request to score a prompt: its token ids, or what `prompt` has made.

    Raises OverflowError if a token id does not fit into 32 bits.
    """
    if not isinstance(prompt, Prompt):
        prompt = Prompt(packed_token_ids=pack(prompt))
    fields: dict[str, Any] = {**options}
    fields["ranks"] = [PodRank(pod=pod, rank=rank) for pod, rank in options.get("ranks", ())]
    return ScoreRequest(model=model, prompt=prompt, **fields)


def prompt(
    *,
    token_ids: Iterable[int] | None = None,
    packed_token_ids: bytes | None = None,
    text: str | None = None,
    chat_completion: Body | None = None,
    completion: Body | None = None,
    messages: Body | None = None,
    multimodal_items: Iterable[tuple[str, int, int]] = (),
) -> Prompt:
    """Return a prompt; give exactly one of the first six.

    Args:
        token_ids: sent as packed_token_ids, which costs least.
        packed_token_ids: token ids as 32-bit little-endian integers.
        text: the service tokenizes it.
        chat_completion: the body of a request to /v1/chat/completions.
        completion: the body of a request to /v1/completions.
        messages: the body of a request to /v1/messages.
        multimodal_items: images and the like: hash, index of the first token, number of tokens.

    Raises TypeError if not exactly one is given, OverflowError if a token id does not fit.
    """
    forms: dict[str, Any] = {
        "token_ids": token_ids,
        "packed_token_ids": packed_token_ids,
        "text": text,
        "chat_completion": _json(chat_completion),
        "completion": _json(completion),
        "messages": _json(messages),
    }
    given = {name: value for name, value in forms.items() if value is not None}
    if len(given) != 1:
        raise TypeError(f"give one of {', '.join(forms)}; given: {', '.join(given) or 'none'}")
    if "token_ids" in given:
        given = {"packed_token_ids": pack(given["token_ids"])}
    items = [MultimodalItem(hash=h, offset=o, length=n) for h, o, n in multimodal_items]
    return Prompt(multimodal_items=items, **given)


class RoutingOptions(TypedDict, total=False):
    """The fields of RecordRoutingRequest besides the handle and the pod, by their names."""

    rank: int
    """The data-parallel rank. Not given: the one that scored best."""
    ttl_ms: int
    """Milliseconds for which the blocks count as speculative. 0: as the service is configured."""


def routing_request(
    handle: bytes, pod: str, **options: Unpack[RoutingOptions]
) -> RecordRoutingRequest:
    """Return the request to record to which pod the prompt of a handle was sent."""
    return RecordRoutingRequest(handle=handle, pod=pod, **options)


class OutcomeOptions(TypedDict, total=False):
    """The fields of ReportOutcomeRequest besides the handle and the tokens, by their names."""

    pod: str
    """Name of the pod. Empty: the one for which the handle was recorded."""
    rank: int
    """The data-parallel rank. Not given: the one for which the handle was recorded."""
    cached_tokens_by_source: Mapping[str, int]
    """The cached tokens by where the engine had them, if it tells."""


def outcome_request(
    handle: bytes, cached_tokens: int, **options: Unpack[OutcomeOptions]
) -> ReportOutcomeRequest:
    """Return the request to report how many tokens of a prompt the engine did not compute."""
    return ReportOutcomeRequest(handle=handle, cached_tokens=cached_tokens, **options)


def pack(token_ids: Iterable[int]) -> bytes:
    """Return token ids as 32-bit little-endian integers. Raises OverflowError."""
    packed = array.array("I", token_ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _json(body: Body | None) -> str | None:
    if body is None or isinstance(body, str):
        return body
    return body.decode() if isinstance(body, bytes) else json.dumps(body)
