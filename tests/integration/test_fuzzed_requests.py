"""Whatever bytes arrive as a request, of any method, the answer has a documented status."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from kvatlas.compat import tokenization_pb2 as compat
from kvatlas.v1 import explain_pb2, fleet_pb2, scoring_pb2, tokenization_pb2
from support.models.trained import write_tokenizer
from support.services.one_pod import MODEL, POD, TOKENS, block_stored, frame, service_with_pod
from support.services.running import RunningService

CHAT = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "cache_salt": "s"})
COMPLETION = json.dumps({"prompt": "Once upon a time", "cache_salt": "s"})
DOCUMENTED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"} | {
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
}
ODD_BYTES = [b"", b"\xed\xa0\x80", b"\xff" * 10, b"\x00", b"\x1b[2J", b"\\ud800", b'"', b"[" * 50]
VALUE = compat.Value(list_value=compat.ListValue(values=[compat.Value(number_value=1.5)]))
MESSAGE = compat.ChatMessage(
    role="user",
    content_parts=[compat.ContentPart(type="text", text="x")],
    tool_calls_json='[{"id": "1"}]',
)


def score_request(**prompt: Any) -> scoring_pb2.ScoreRequest:
    return scoring_pb2.ScoreRequest(
        model=MODEL,
        prompt=scoring_pb2.Prompt(
            multimodal_items=[scoring_pb2.MultimodalItem(hash="h", offset=1, length=2)], **prompt
        ),
        pods=[POD, "x"],
        lora_name="",
        cache_salt="s",
    )


SCORES = [
    score_request(packed_token_ids=struct.pack("<64I", *TOKENS)),
    score_request(token_ids=scoring_pb2.TokenIds(ids=TOKENS)),
    score_request(text="Once upon a time"),
    score_request(chat_completion=CHAT),
    score_request(completion=COMPLETION),
    score_request(messages=CHAT),
]
REQUESTS: dict[str, list[Message]] = {
    "kvatlas.v1.ScoringService/Score": [*SCORES],
    "kvatlas.v1.ScoringService/ScoreMany": [scoring_pb2.ScoreManyRequest(requests=SCORES)],
    "kvatlas.v1.ExplainService/Explain": [
        explain_pb2.ExplainRequest(score=request) for request in SCORES
    ],
    "kvatlas.v1.ExplainService/LookupBlocks": [
        explain_pb2.LookupBlocksRequest(keys=[1, 2**64 - 1], engine_hashes=[1, 2]),
        explain_pb2.LookupBlocksRequest(model=MODEL, pod=POD, engine_hashes=[1, 2]),
    ],
    "kvatlas.v1.TokenizationService/Tokenize": [
        tokenization_pb2.TokenizeRequest(model=MODEL, text="x", add_special_tokens=True),
        tokenization_pb2.TokenizeRequest(model=MODEL, chat_completion=CHAT),
        tokenization_pb2.TokenizeRequest(model=MODEL, completion=COMPLETION),
        tokenization_pb2.TokenizeRequest(model=MODEL, messages=CHAT),
    ],
    "kvatlas.v1.FleetService/ListPods": [fleet_pb2.ListPodsRequest(model=MODEL)],
    "kvatlas.v1.FleetService/ForgetPod": [fleet_pb2.ForgetPodRequest(pod="x")],
    "kvatlas.v1.FleetService/ResyncPod": [fleet_pb2.ResyncPodRequest(pod="x")],
    "tokenization.TokenizationService/Tokenize": [
        compat.TokenizeRequest(input="x", model_name=MODEL, add_special_tokens=True)
    ],
    "tokenization.TokenizationService/RenderChatTemplate": [
        compat.ChatTemplateRequest(
            conversation_turns=[compat.ConversationTurn(messages=[MESSAGE])],
            tools=[compat.ToolDescription(tool={"a": VALUE})],
            documents=[compat.Document(document={"b": VALUE})],
            chat_template_kwargs={"c": VALUE},
            model_name=MODEL,
        )
    ],
    "tokenization.TokenizationService/InitializeTokenizer": [
        compat.InitializeTokenizerRequest(model_name=MODEL)
    ],
    "tokenization.TokenizationService/RenderChatCompletion": [
        compat.RenderChatCompletionRequest(
            model_name=MODEL, messages=[MESSAGE], tools_json="[]", chat_template_kwargs="{}"
        )
    ],
    "tokenization.TokenizationService/RenderCompletion": [
        compat.RenderCompletionRequest(model_name=MODEL, prompt="x")
    ],
}


def mutated(source: random.Random, raw: bytes) -> bytes:
    """The bytes of a request, changed in a few places."""
    changed = bytearray(raw)
    for _ in range(source.randrange(4)):
        at = source.randrange(len(changed) + 1)
        match source.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << source.randrange(8)
            case 1 if at < len(changed):
                changed[at] = source.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 2:
                del changed[at : at + source.randrange(1, 8)]
            case 3:
                changed[at:at] = source.choice(ODD_BYTES)
            case 4:
                changed[at:at] = changed[at : at + source.randrange(40)] * source.randrange(1, 30)
            case _:
                changed[at:] = source.randbytes(source.randrange(20))
    return bytes(changed)


async def fuzz(service: RunningService, seed: int, count: int) -> Counter[str]:
    """Send so many changed requests; what became of them."""
    source = random.Random(seed)
    ended: Counter[str] = Counter()

    async def one(method: str, raw: bytes) -> None:
        call: Any = service.channel_of(method).unary_unary(f"/{method}")
        try:
            await call(raw, timeout=60)
        except grpc.aio.AioRpcError as error:
            code, text = error.code().name, error.details() or ""
        else:
            code, text = "OK", ""
        ended[code] += 1
        assert code in DOCUMENTED, (method, raw, code, text)
        assert text.isprintable(), (method, raw)
        assert len(text.encode()) <= 1024, (method, raw)

    for _ in range(count // 20):
        methods = source.choices(list(REQUESTS), k=20)
        await asyncio.gather(
            *(
                one(method, mutated(source, source.choice(REQUESTS[method]).SerializeToString()))
                for method in methods
            )
        )
    return ended


async def fuzzed(directory: Path, seed: int, count: int) -> Counter[str]:
    write_tokenizer(directory)
    (directory / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    models = [{"name": MODEL, "tokenizer": str(directory)}]
    async with service_with_pod(models=models) as (service, pod):
        pod.send(frame(0, block_stored(TOKENS)))
        await service.until_applied({(POD, 0): 0})
        ended = await fuzz(service, seed, count)
        assert await service.pods()
    return ended


@pytest.mark.parametrize("seed", range(3))
async def test_every_changed_request_is_answered_or_refused(tmp_path: Path, seed: int) -> None:
    ended = await fuzzed(tmp_path, seed, 600)
    assert ended["OK"] > 50
    assert ended["INVALID_ARGUMENT"] > 50


@pytest.mark.soak
async def test_every_one_of_many_changed_requests_is_answered_or_refused(tmp_path: Path) -> None:
    ended = await fuzzed(tmp_path, 1000, 100_000)
    print(dict(ended))
