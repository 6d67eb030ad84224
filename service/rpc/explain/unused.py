"""What of a request had no effect on its scores."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kvatlas.v1.explain_pb2 import UnusedField

from service.explaining.words import short
from service.rpc.explain.read_fields import ReadFields
from tokenization import RequestBody

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvatlas.v1.scoring_pb2 import ScoreRequest

    from service.explaining import AskedPrompt
    from tokenization import Prompt, PromptDescription

MOST_FIELDS = 64
_NOT_EXPLAINED = {
    "only_holders": "an explanation shows pods that hold nothing, too",
    "max_pods": "an explanation shows all pods, as far as there is room",
    "by_rank": "an explanation shows all ranks, as far as there is room",
    "ranks": "an explanation shows all ranks of these pods",
    "budget_ms": "an explanation takes the time that it takes",
    "want_handle": "nothing is sent to a pod for an explanation",
}
_KNOWN = {
    "messages", "tools", "tool_choice", "documents", "add_generation_prompt", "prompt",
    "continue_final_message", "chat_template", "chat_template_kwargs", "reasoning_effort", "system",
}  # fmt: skip


def unused_fields(
    request: ScoreRequest, prompt: Prompt, described: PromptDescription, asked: AskedPrompt
) -> list[UnusedField]:
    """Return the parts of a request that had no effect; of a great many the first ones."""
    found = [
        *_of_request(request, asked),
        *_of_items(asked),
        *_of_body(request, prompt, described),
    ]
    return [UnusedField(field=short(field), reason=reason) for field, reason in found[:MOST_FIELDS]]


def _of_request(request: ScoreRequest, asked: AskedPrompt) -> Iterator[tuple[str, str]]:
    for field, reason in _NOT_EXPLAINED.items():
        if getattr(request, field):
            yield field, reason
    for pod, count in Counter(request.pods).items():
        if count > 1:
            yield f"pods[{short(pod)}]", f"the pod is named {count} times, and answered once"
    if request.lora_name and request.lora_name == asked.model:
        yield "lora_name", "it is the name of the model, which the keys begin with in any case"


def _of_items(asked: AskedPrompt) -> Iterator[tuple[str, str]]:
    full = asked.total_blocks * asked.block_size
    for item in asked.items:
        if item.offset >= full:
            field = f"prompt.multimodal_items[{short(item.hash)}]"
            yield field, f"it begins at token {item.offset}, after the last full block ({full})"


def _of_body(
    request: ScoreRequest, prompt: Prompt, described: PromptDescription
) -> Iterator[tuple[str, str]]:
    if not isinstance(prompt, RequestBody) or not isinstance(prompt.body, ReadFields):
        return
    body, name = prompt.body, f"prompt.{request.prompt.WhichOneof('input')}"
    salt = body.value_of("cache_salt")
    if request.cache_salt and salt and salt != request.cache_salt:
        yield f"{name}.cache_salt", "the cache_salt of the ScoreRequest counts instead"
    for field in described.unread_arguments:
        yield f"{name}.chat_template_kwargs.{short(field)}", "the chat template does not read it"
    for field in body.unread:
        reason = "it has no effect on the tokens of the prompt"
        if field == "model" and body.value_of(field) != request.model:
            reason = (
                f"it names {short(str(body.value_of(field)))!r}, and the model of the ScoreRequest "
                "counts: if this is an adapter, set lora_name"
            )
        elif field in _KNOWN:
            reason = "this prompt has token ids already, or no use for it"
        yield f"{name}.{short(field)}", reason
