"""The service as its callers meet it: answers, errors, health, reflection, metrics, shutdown."""

from __future__ import annotations

import asyncio
import re
import struct
import urllib.request
from pathlib import Path
from typing import Any

import cbor2
import grpc
import msgpack
import pytest
import tokenizers
import zmq
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc, tokenization_pb2, tokenization_pb2_grpc
from support.engines.publisher import Publisher
from support.given_keys import GivenKeys
from support.models.trained import TEXT, write_tokenizer
from support.services.one_pod import (
    MODEL,
    TOKENS,
    block_stored,
    frame,
    matched_blocks,
    score,
    score_request,
    service_with_pod,
)
from support.services.running import RunningService, local_configuration, running_service

from indexer.kernel.keys import FNV_OFFSET_BASIS, fnv1a_64
from service.application import Application
from service.listening import ListenError


async def test_a_score_answers_counts_and_names_strangers(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(frame(0, block_stored(TOKENS[:48])))
    await service.until_applied({("10.0.0.1:8000", 0): 0})
    answer = await score(
        service, score_request([*TOKENS, 1], pods=["10.0.0.1:8000", "10.9.9.9:8000"])
    )
    assert (answer.total_blocks, answer.total_tokens, answer.block_size) == (4, 65, 16)
    assert list(answer.unknown_pods) == ["10.9.9.9:8000"]
    (found,) = answer.pods
    assert (found.pod, found.score, found.matched_blocks) == ("10.0.0.1:8000", 3.0, 3)
    assert (found.matched_tokens, dict(found.matched_blocks_by_tier)) == (48, {"gpu": 3})


async def test_all_three_forms_of_a_prompt_score_alike(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(frame(0, block_stored(TOKENS)))
    await service.until_applied({("10.0.0.1:8000", 0): 0})
    packed = scoring_pb2.ScoreRequest(model=MODEL)
    packed.prompt.packed_token_ids = struct.pack(f"<{len(TOKENS)}I", *TOKENS)
    assert (
        await matched_blocks(service, packed)
        == await matched_blocks(service, score_request(TOKENS))
        == 4
    )


async def test_two_images_over_the_same_tokens_share_nothing_from_there_on(
    service: RunningService, pod: Publisher
) -> None:
    """An image lies in blocks 1 and 2 of 4; vLLM says so in extra_keys."""
    extra_keys = [None, [["image-a", 4]], [["image-a", -12]], None]
    pod.send(frame(0, block_stored(TOKENS, extra_keys=extra_keys)))
    await service.until_applied({("10.0.0.1:8000", 0): 0})
    assert await matched_blocks(service, score_request(TOKENS, ("image-a", 20, 20))) == 4
    assert await matched_blocks(service, score_request(TOKENS, ("image-b", 20, 20))) == 1
    assert await matched_blocks(service, score_request(TOKENS)) == 1


async def test_a_salt_and_an_adapter_keep_prompts_apart(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(
        frame(
            0,
            block_stored(TOKENS[:16], 1, extra_keys=[["tenant-a"]]),
            block_stored(TOKENS[:32], 11, lora_id=1, lora_name="x", extra_keys=[["x"], ["x"]]),
            block_stored(TOKENS[:48], 21, cache_salt="tenant-b"),  # as SGLang says it
        )
    )
    await service.until_applied({("10.0.0.1:8000", 0): 0})
    assert await matched_blocks(service, score_request(TOKENS)) == 0
    assert await matched_blocks(service, score_request(TOKENS, cache_salt="tenant-a")) == 1
    assert await matched_blocks(service, score_request(TOKENS, lora_name="x")) == 2
    assert await matched_blocks(service, score_request(TOKENS, cache_salt="tenant-b")) == 3
    assert (
        await matched_blocks(service, score_request(TOKENS, lora_name="x", cache_salt="tenant-a"))
        == 0
    )


async def test_a_block_with_two_copies_needs_two_removals(
    service: RunningService, pod: Publisher
) -> None:
    removed = {"type": "BlockRemoved", "block_hashes": [1], "medium": "GPU", "group_idx": 0}
    pod.send(frame(0, block_stored(TOKENS), block_stored(TOKENS[:16])))
    pod.send(frame(1, removed))
    await service.until_applied({("10.0.0.1:8000", 0): 1})
    assert await matched_blocks(service, score_request(TOKENS)) == 4
    pod.send(frame(2, removed))
    await service.until_applied({("10.0.0.1:8000", 0): 2})
    assert await matched_blocks(service, score_request(TOKENS)) == 0


async def test_the_service_matches_block_keys_that_cbor2_alone_made(
    service: RunningService, pod: Publisher
) -> None:
    """Were both lines wrong alike, scores would not show it: so look the keys up from outside."""
    extra_keys = [[["img", 8], "salt"], [["img", -8]]]
    pod.send(frame(0, block_stored(TOKENS[:32], extra_keys=extra_keys)))
    await service.until_applied({("10.0.0.1:8000", 0): 0})
    key = fnv1a_64(cbor2.dumps([FNV_OFFSET_BASIS, None, MODEL], canonical=True), FNV_OFFSET_BASIS)
    keys = []
    for index, extra in enumerate([[{"Hash": "img"}, {"Salt": "salt"}], [{"Hash": "img"}]]):
        chunk = TOKENS[index * 16 : index * 16 + 16]
        key = fnv1a_64(cbor2.dumps([key, chunk, extra], canonical=True), FNV_OFFSET_BASIS)
        keys.append(key)
    match = service.application.index.match(MODEL, GivenKeys(keys))
    best = match.best_of("10.0.0.1:8000")
    assert best is not None
    assert best.matched_blocks == 2
    assert (
        await matched_blocks(service, score_request(TOKENS[:32], ("img", 8, 16), cache_salt="salt"))
        == 2
    )


async def test_garbage_on_the_socket_is_counted_and_stops_nothing(
    service: RunningService, pod: Publisher
) -> None:
    pod.send([b"one part"])
    pod.send([b"kv@a@b", b"short", b""])
    pod.send([b"kv@p@m", bytes(8), b"\xc1\xff\x00"])
    pod.send([b"", bytes(8), msgpack.packb([1.0, [block_stored(TOKENS)], 0])])
    pod.send([b"kv@pod-without-model", bytes(8), msgpack.packb([1.0, [], 0])])
    pod.send([b"\xff\xfe", bytes(8), msgpack.packb([1.0, [], 0])])
    pod.send(frame(0, {"type": "Unheard"}, block_stored(TOKENS), {"type": "BlockStored"}))
    await service.until_applied({("10.0.0.1:8000", 0): 0})
    assert await matched_blocks(service, score_request(TOKENS)) == 4
    assert service.application.listener.router.skipped == {
        "frame_parts": 1,
        "frame_sequence": 1,
        "unexpected_payload": 1,
        "unknown_pod": 2,
        "unknown_model": 1,
    }
    rank = (await service.pods())["10.0.0.1:8000", 0]
    assert dict(rank.skipped) == {"unknown_event": 1, "broken_event": 1}


@pytest.mark.settings(pod_names={"pod-a": "10.0.0.1:8000"}, default_model=MODEL)
async def test_pod_names_in_topics_are_mapped_and_a_default_model_stands_in(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(frame(0, block_stored(TOKENS), topic="kv@pod-a"))
    await service.until_applied({("10.0.0.1:8000", 0): 0})
    assert await matched_blocks(service, score_request(TOKENS)) == 4


async def test_lost_and_repeated_frames_are_counted(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(frame(0, block_stored(TOKENS)))
    pod.send(frame(5, {"type": "AllBlocksCleared"}))
    pod.send(frame(5, {"type": "AllBlocksCleared"}))
    pod.send(frame(6, block_stored(TOKENS[:16])))
    await service.until_applied({("10.0.0.1:8000", 0): 6})
    rank = (await service.pods())["10.0.0.1:8000", 0]
    assert (rank.gaps, rank.missed_frames, rank.duplicate_frames) == (1, 4, 1)
    assert dict(rank.blocks_by_tier) == {"gpu": 1}
    assert dict(rank.events) == {"BlockStored": 2, "AllBlocksCleared": 1}


async def test_absurd_ranks_and_sequences_break_no_answer(
    service: RunningService, pod: Publisher
) -> None:
    topic = f"kv@10.0.0.1:8000@{MODEL}".encode()
    absurd = msgpack.packb([1.0, [block_stored(TOKENS)], 2**40])
    pod.send([topic, (2**64 - 2).to_bytes(8, "big"), absurd])
    pod.send([topic, bytes(8), absurd])
    pod.send([topic, (2**64 - 2).to_bytes(8, "big"), absurd])
    pod.send([topic, bytes(8), absurd])
    pod.send([topic, (2**64 - 1).to_bytes(8, "big"), absurd])
    await service.until_applied({("10.0.0.1:8000", 0): 2**64 - 1})
    assert await matched_blocks(service, score_request(TOKENS)) == 4
    assert (await service.pods())["10.0.0.1:8000", 0].missed_frames == 2**64 - 3


async def test_a_payload_cut_short_counts_for_the_rank_that_sent_it(
    service: RunningService, pod: Publisher
) -> None:
    topic = f"kv@10.0.0.1:8000@{MODEL}".encode()
    whole = msgpack.packb([1.0, [block_stored(TOKENS[:16]), block_stored(TOKENS, 11)], 1])
    pod.send([topic, bytes(8), msgpack.packb([1.0, [], 1])])
    pod.send([topic, (1).to_bytes(8, "big"), whole[:-40]])
    await service.until_applied({("10.0.0.1:8000", 1): 1})
    pods = await service.pods()
    assert set(pods) == {("10.0.0.1:8000", 1)}
    assert dict(pods["10.0.0.1:8000", 1].skipped) == {"truncated_payload": 1}
    assert await matched_blocks(service, score_request(TOKENS)) == 1


async def refusal(service: RunningService, request: Any) -> tuple[grpc.StatusCode, str]:
    if isinstance(request, scoring_pb2.ScoreRequest):
        call = scoring_pb2_grpc.ScoringServiceStub(service.channel).Score
    else:
        call = tokenization_pb2_grpc.TokenizationServiceStub(service.channel).Tokenize
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(request)
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.settings(limits={"prompt_tokens": 100, "text_bytes": 200})
async def test_bad_requests_are_refused_with_status_and_reason(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(frame(0, block_stored(TOKENS)))
    await service.until_applied({("10.0.0.1:8000", 0): 0})
    broken = scoring_pb2.ScoreRequest(model=MODEL)
    broken.prompt.packed_token_ids = b"12345"
    empty = scoring_pb2.ScoreRequest(model=MODEL)
    empty.prompt.packed_token_ids = b""
    text = scoring_pb2.ScoreRequest(model=MODEL)
    text.prompt.text = "Hello"
    tokenize = tokenization_pb2.TokenizeRequest
    cases: list[tuple[Any, grpc.StatusCode, str]] = [
        (score_request(TOKENS, model=""), grpc.StatusCode.INVALID_ARGUMENT, "model is not set"),
        (scoring_pb2.ScoreRequest(model=MODEL), grpc.StatusCode.INVALID_ARGUMENT, "prompt.text"),
        (score_request([]), grpc.StatusCode.INVALID_ARGUMENT, "prompt"),
        (empty, grpc.StatusCode.INVALID_ARGUMENT, "no tokens"),
        (broken, grpc.StatusCode.INVALID_ARGUMENT, "5 bytes"),
        (
            score_request(TOKENS, ("", 0, 1)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "multimodal_items[0]",
        ),
        (
            score_request(TOKENS, ("a", 0, 40), ("b", 1, 40)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "overlap",
        ),
        (score_request(TOKENS, model="nobody"), grpc.StatusCode.NOT_FOUND, MODEL),
        (text, grpc.StatusCode.FAILED_PRECONDITION, "no tokenizer"),
        (score_request(list(range(101))), grpc.StatusCode.RESOURCE_EXHAUSTED, "101 tokens"),
        (tokenize(text="x"), grpc.StatusCode.INVALID_ARGUMENT, "model"),
        (tokenize(model=MODEL), grpc.StatusCode.INVALID_ARGUMENT, "empty"),
        (tokenize(model="../../etc", text="x"), grpc.StatusCode.FAILED_PRECONDITION, "tokenizer"),
        (tokenize(model=MODEL, text="x" * 201), grpc.StatusCode.RESOURCE_EXHAUSTED, "200 bytes"),
    ]
    for request, status, words in cases:
        found, detail = await refusal(service, request)
        assert found == status, request
        assert words in detail
    assert await matched_blocks(service, score_request(TOKENS)) == 4


async def test_text_is_tokenized_as_the_file_says_and_scored(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path)
    reference = tokenizers.Tokenizer.from_file(str(path))
    reference.no_truncation()
    text = " ".join(TEXT)
    expected = reference.encode(text).ids
    assert expected[0] == 0
    assert len(expected) > 64
    models = [{"name": MODEL, "tokenizer": str(tmp_path)}]
    async with service_with_pod(models=models) as (service, pod):
        stub = tokenization_pb2_grpc.TokenizationServiceStub(service.channel)
        request = tokenization_pb2.TokenizeRequest(model=MODEL, text=text)
        assert list((await stub.Tokenize(request)).token_ids) == expected
        request.add_special_tokens = False
        assert list((await stub.Tokenize(request)).token_ids) == expected[1:]
        pod.send(frame(0, block_stored(expected[:64])))
        await service.until_applied({("10.0.0.1:8000", 0): 0})
        ask_text = scoring_pb2.ScoreRequest(model=MODEL)
        ask_text.prompt.text = text
        assert await matched_blocks(service, ask_text) == 4


@pytest.mark.settings(models=[{"name": "configured"}])
async def test_a_configured_model_without_pods_is_known(
    service: RunningService, pod: Publisher
) -> None:
    answer = await score(service, score_request(TOKENS, model="configured"))
    assert (len(answer.pods), answer.total_blocks) == (0, 4)


@pytest.mark.settings(models=[{"name": MODEL, "block_size": 32}])
async def test_a_model_may_have_a_block_size_of_its_own(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(frame(0, block_stored(TOKENS)))
    await service.until_applied({("10.0.0.1:8000", 0): 0})
    answer = await score(service, score_request(TOKENS))
    assert (answer.block_size, answer.pods[0].matched_blocks) == (32, 2)


async def test_health_and_both_reflections_answer(service: RunningService, pod: Publisher) -> None:
    health: Any = health_pb2_grpc.HealthStub(service.channel)
    for name in ("", "kvatlas.v1.ScoringService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    for version in ("v1", "v1alpha"):
        call = service.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="kvatlas.v1.ScoringService"
            ),
        ]
        answers = [answer async for answer in call(iter(requests))]
        names = {listed.name for listed in answers[0].list_services_response.service}
        assert {"kvatlas.v1.ScoringService", "grpc.health.v1.Health"} <= names
        described = descriptor_pb2.FileDescriptorProto.FromString(
            answers[1].file_descriptor_response.file_descriptor_proto[0]
        )
        assert described.name == "kvatlas/v1/scoring.proto"


async def test_metrics_count_calls_events_skips_and_blocks(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(frame(0, block_stored(TOKENS), {"type": "Unheard"}))
    await service.until_applied({("10.0.0.1:8000", 0): 0})
    await matched_blocks(service, score_request(TOKENS))
    await refusal(service, score_request([]))
    url = f"http://127.0.0.1:{service.application.metrics_port}/metrics"
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    for line in (
        'kvatlas_rpc_duration_seconds_count{method="Score",status="OK"} 1.0',
        'kvatlas_rpc_duration_seconds_count{method="Score",status="INVALID_ARGUMENT"} 1.0',
        'kvatlas_events_total{pod="10.0.0.1:8000",rank="0",type="BlockStored"} 1.0',
        'kvatlas_events_skipped_total{pod="10.0.0.1:8000",rank="0",reason="unknown_event"} 1.0',
        f'kvatlas_pod_blocks{{model="{MODEL}",pod="10.0.0.1:8000",rank="0",tier="gpu"}} 4.0',
        "kvatlas_index_blocks 4.0",
        "kvatlas_frames_total 1.0",
    ):
        assert line in page


def get(service: RunningService, path: str) -> str:
    url = f"http://127.0.0.1:{service.application.metrics_port}{path}"
    with urllib.request.urlopen(url) as answer:
        return str(answer.read().decode())


async def test_metrics_tell_of_answers_calls_the_process_and_the_build(
    service: RunningService, pod: Publisher
) -> None:
    pod.send(frame(0, block_stored(TOKENS[:32])))
    await service.until_applied({("10.0.0.1:8000", 0): 0})
    await matched_blocks(service, score_request(TOKENS))
    await matched_blocks(service, score_request([7] * 64))
    page = await asyncio.to_thread(get, service, "/metrics")
    for line in (
        'kvatlas_matched_share_bucket{le="0.0"} 1.0',
        'kvatlas_matched_share_bucket{le="0.5"} 2.0',
        "kvatlas_matched_share_sum 0.5",
        'kvatlas_answers_total{state="exact"} 1.0',
        'kvatlas_answers_total{state="no_match"} 1.0',
        'kvatlas_rpc_under_way{method="Score",service="kvatlas.v1.ScoringService"} 0.0',
        'grpc_server_handled_total{grpc_code="OK",grpc_method="Score",',
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "kvatlas_build_info{",
        "kvatlas_ranks_not_shown 0.0",
    ):
        assert line in page
    assert await asyncio.to_thread(get, service, "/healthz") == "serving\n"


@pytest.mark.settings(metrics={"listen": "127.0.0.1:0", "ranks": 3})
async def test_metrics_do_not_grow_with_the_pods_that_are_invented(
    service: RunningService, pod: Publisher
) -> None:
    for number in range(20):
        pod.send(frame(0, block_stored(TOKENS), topic=f"kv@pod-{number:02}@{MODEL}"))
    await service.until_applied({(f"pod-{number:02}", 0): 0 for number in range(20)})
    page = await asyncio.to_thread(get, service, "/metrics")
    shown = set(re.findall(r'pod="([^"]+)"', page))
    assert shown == {"pod-00", "pod-01", "pod-02"}
    assert "kvatlas_ranks_not_shown 17.0" in page


async def test_the_service_answers_on_a_unix_socket(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/kvatlas.sock"
    source = {"endpoint": "tcp://127.0.0.1:9", "pod": "10.0.0.1:8000", "model": MODEL}
    async with running_service(
        local_configuration(sources=[source], grpc={"listen": [address]})
    ) as service:
        assert service.application.addresses == [address]
        assert (
            await matched_blocks(service, score_request(TOKENS)) == 0
        )  # configured, but silent so far


async def test_a_start_on_a_taken_address_fails_and_names_it() -> None:
    async with running_service(local_configuration()) as service:
        taken = service.application.addresses[0]
        with pytest.raises(ListenError, match=taken):
            async with Application(local_configuration(grpc={"listen": [taken]})):
                pass


async def test_a_publisher_that_comes_back_is_heard_again() -> None:
    with zmq.Context() as context:
        first = Publisher(context)
        endpoint = first.endpoint
        source = {"endpoint": endpoint, "pod": "10.0.0.1:8000", "model": MODEL}
        async with running_service(local_configuration(sources=[source])) as service:
            await first.until_subscribed()
            first.send(frame(0, block_stored(TOKENS[:16])))
            await service.until_applied({("10.0.0.1:8000", 0): 0})
            first.close()
            second = context.socket(zmq.XPUB)
            while True:
                try:
                    second.bind(endpoint)
                    break
                except zmq.ZMQError:
                    await asyncio.sleep(0.01)
            assert await asyncio.to_thread(second.poll, 30_000)
            second.send_multipart(frame(1, block_stored(TOKENS)))
            await service.until_applied({("10.0.0.1:8000", 0): 1})
            assert await matched_blocks(service, score_request(TOKENS)) == 4
            second.close(linger=0)
