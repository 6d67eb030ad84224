"""Calls of both clients: what they send, what they make of errors, how often they try."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kvatlas.v1.explain_pb2 import LookupBlocksRequest
from kvatlas.v1.tokenization_pb2 import TokenizeRequest
from kvatlas_client import (
    DeadlineError,
    InvalidRequestError,
    KvatlasError,
    LimitError,
    NotFoundError,
    Retry,
    Tls,
    UnavailableError,
    outcome_request,
    prompt,
    routing_request,
    score_request,
)
from support.certificates import Authority
from support.clients.either import KINDS, either_client
from support.clients.flaky_server import flaky_server
from support.ports import free_port
from support.services.one_pod import (
    MODEL,
    POD,
    TOKENS,
    block_stored,
    frame,
    service_with_pod,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.parametrize("kind", KINDS)
REQUEST = score_request(MODEL, TOKENS, pods=[POD, "10.0.0.9:1"])


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
async def test_prompts_are_scored_and_pods_listed(kind: str, transport: str) -> None:
    settings = {"listen": ["127.0.0.1:0"], "transport": transport}
    async with service_with_pod(grpc=settings, models=[{"name": MODEL}]) as (service, pod):
        pod.send(frame(0, block_stored(TOKENS[:32])))
        await service.until_applied({(POD, 0): 0})
        async with either_client(kind, service.application.addresses[0]) as client:
            answer = await client.score(REQUEST)
            assert [(each.pod, each.matched_blocks) for each in answer.pods] == [(POD, 2)]
            assert list(answer.unknown_pods) == ["10.0.0.9:1"]
            image = prompt(token_ids=TOKENS, multimodal_items=[("image", 3, 4)])
            requests = [REQUEST, score_request(MODEL, []), score_request(MODEL, image)]
            scored, refused, other = await client.score_many(requests)
            assert scored == answer
            assert isinstance(refused, InvalidRequestError)
            assert refused.reason == "REQUEST_INVALID"
            assert [each.matched_blocks for each in other.pods] == [0]
            assert [each.pod for each in (await client.explain(REQUEST)).pods] == [POD]
        async with either_client(kind, service.application.admin_addresses[0]) as admin:
            listed = await admin.list_pods(MODEL)
            assert [each.pod for each in listed.pods] == [POD]
            assert not (await admin.list_pods("another")).pods
            changes = admin.watch_pods(MODEL, [POD])
            if kind == "sync":
                changes = in_thread(await changes)
            assert (await anext(changes)).pod == POD
            await changes.aclose()


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
async def test_errors_have_a_class_a_code_a_reason_and_a_limit(kind: str, transport: str) -> None:
    settings = {"listen": ["127.0.0.1:0"], "transport": transport}
    limits = {"prompt_tokens": 100}
    async with (
        service_with_pod(grpc=settings, models=[{"name": MODEL}], limits=limits) as (service, _),
        either_client(kind, service.application.addresses[0]) as client,
    ):
        with pytest.raises(LimitError) as caught:
            await client.score(score_request(MODEL, [7] * 101))
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (caught.value.reason, caught.value.limit) == (
            "LIMIT_EXCEEDED",
            "limits.prompt_tokens",
        )
        assert "RESOURCE_EXHAUSTED (LIMIT_EXCEEDED): " in str(caught.value)
        with pytest.raises(NotFoundError) as unknown:
            await client.score(score_request("nobody's", TOKENS))
        assert (unknown.value.reason, unknown.value.limit) == ("MODEL_UNKNOWN", "")
        with pytest.raises(InvalidRequestError) as invalid:
            await client.score(score_request("", TOKENS))
        assert invalid.value.reason == "REQUEST_INVALID"
        with pytest.raises(KvatlasError) as missing:
            await client.tokenize(TokenizeRequest(model=MODEL, text="a text"))
        assert type(missing.value) is KvatlasError
        assert missing.value.code is grpc.StatusCode.FAILED_PRECONDITION
        assert missing.value.reason == "TOKENIZER_MISSING"


async def test_errors_of_several_requests_stand_in_their_places(kind: str) -> None:
    async with flaky_server() as server, either_client(kind, server.address) as client:
        first, second, third = await client.score_many([REQUEST] * 3)
        assert (first.total_tokens, third.total_tokens) == (0, 2)
        assert isinstance(second, NotFoundError)
        assert (second.message, second.limit) == ("nobody's", "limits.some")
        routings = [routing_request(b"h", POD), routing_request(b"h", POD, rank=1, ttl_ms=500)]
        refused, recorded = await client.record_routings(routings)
        assert isinstance(refused, NotFoundError)
        assert recorded.promised_tokens == 1
        assert server.calls[-1].requests[1].rank == 1
        assert not server.calls[-1].requests[0].HasField("rank")
        outcomes = [outcome_request(b"h", 16), outcome_request(b"h", 32, pod=POD)]
        assert [each.promised_tokens for each in await client.report_outcomes(outcomes)] == [0, 1]


async def test_routings_and_outcomes_are_told(kind: str) -> None:
    async with flaky_server() as server, either_client(kind, server.address) as client:
        recorded = await client.record_routing(b"handle", POD, ttl_ms=300)
        assert recorded.speculative_blocks == len(b"handle")
        assert server.calls[-1].ttl_ms == 300
        sources = {"gpu": 32, "disk": 16}
        counted = await client.report_outcome(b"handle", 48, cached_tokens_by_source=sources)
        assert counted.promised_tokens == 48
        assert dict(server.calls[-1].cached_tokens_by_source) == sources


async def test_scores_are_explained_and_blocks_looked_up(kind: str) -> None:
    async with flaky_server() as server, either_client(kind, server.address) as client:
        assert (await client.explain(REQUEST)).summary == MODEL
        assert server.calls[-1].score == REQUEST
        found = await client.lookup_blocks(LookupBlocksRequest(keys=[3, 2**64 - 1]))
        assert [each.key for each in found.blocks] == [3, 2**64 - 1]


async def test_pods_are_watched_until_the_service_stops_or_the_caller_does(kind: str) -> None:
    async with flaky_server() as server, either_client(kind, server.address) as client:
        changes = client.watch_pods(MODEL, [POD, "10.0.0.2:8000"])
        if kind == "sync":
            changes = in_thread(await changes)
        assert [(await anext(changes)).pod for _ in range(2)] == [POD, "10.0.0.2:8000"]
        assert server.calls[-1].model == MODEL
        server.break_streams()
        with pytest.raises(UnavailableError, match="is stopping"):
            await anext(changes)
        changes = client.watch_pods(timeout=0.1)
        if kind == "sync":
            changes = in_thread(await changes)
        with pytest.raises(DeadlineError):
            await anext(changes)


async def in_thread(iterator: Iterator[Any]) -> AsyncIterator[Any]:
    """What a synchronous iterator yields."""
    end = object()
    while (item := await asyncio.to_thread(next, iterator, end)) is not end:
        yield item


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_calls_are_repeated_so_many_times(kind: str, attempts: int) -> None:
    retry = Retry(attempts=attempts, first_seconds=0.005, longest_seconds=0.01)
    async with (
        flaky_server() as server,
        either_client(kind, server.address, retry=retry) as client,
    ):
        server.refusals = attempts - 1
        assert (await client.score(REQUEST)).total_tokens == attempts
        server.calls.clear()
        server.refusals = attempts
        with pytest.raises(UnavailableError, match="0 refusals are left"):
            await client.score(REQUEST)
        assert len(server.calls) == attempts
        assert await client.score(REQUEST)


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_only_unavailable_is_repeated(kind: str, code: grpc.StatusCode) -> None:
    async with flaky_server() as server, either_client(kind, server.address) as client:
        server.refusals, server.code = 1, code
        with pytest.raises(KvatlasError) as caught:
            await client.score(REQUEST)
        assert caught.value.code is code
        assert len(server.calls) == 1


async def test_retries_end_with_the_deadline(kind: str) -> None:
    retry = Retry(attempts=5, first_seconds=30.0, longest_seconds=30.0)
    async with (
        flaky_server() as server,
        either_client(kind, server.address, retry=retry) as client,
    ):
        server.refusals = 5
        start = time.monotonic()
        with pytest.raises((DeadlineError, UnavailableError)):
            await client.score(REQUEST, timeout=0.2)
        assert time.monotonic() - start < 20
        assert len(server.calls) == 1


async def test_a_service_that_is_not_there_is_unavailable(kind: str) -> None:
    async with either_client(kind, f"127.0.0.1:{free_port()}") as client:
        with pytest.raises(UnavailableError) as caught:
            await client.score(REQUEST)
        assert caught.value.reason == ""


@pytest.mark.parametrize("balance", ["round_robin", "pick_first"])
async def test_calls_are_spread_or_not(kind: str, balance: str) -> None:
    async with flaky_server() as one, flaky_server() as other:
        addresses = [one.address, f"127.0.0.1:{free_port()}", other.address]
        async with either_client(kind, addresses, balance=balance) as client:
            while not (one.calls and other.calls) and len(one.calls) < 50:
                await client.score(REQUEST)
            assert bool(other.calls) is (balance == "round_robin")


async def test_a_service_at_a_unix_socket_is_reached(kind: str, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/kvatlas.sock"
    settings = {"listen": ["127.0.0.1:0", address]}
    async with (
        service_with_pod(grpc=settings, models=[{"name": MODEL}]),
        either_client(kind, address) as client,
    ):
        assert (await client.score(REQUEST)).total_blocks == 4


async def test_tls_and_a_token_that_changes(kind: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    chain, key, tokens = (tmp_path / name for name in ("tls.crt", "tls.key", "tokens"))
    authority.issue(chain, key)
    tokens.write_text("old\nnew\n")
    files = {"certificate_file": chain, "key_file": key, "client_ca_file": authority.file}
    settings = {"listen": ["127.0.0.1:0"], "token_file": tokens, **files}
    tls = Tls.from_files(authority.file, chain, key)
    async with service_with_pod(grpc=settings, models=[{"name": MODEL}]) as (service, _):
        address = service.application.addresses[0]
        present = ["old"]
        async with either_client(kind, address, tls=tls, token=lambda: present[0]) as client:
            assert (await client.score(REQUEST)).total_blocks == 4
            present[0] = "stolen"
            with pytest.raises(KvatlasError) as caught:
                await client.score(REQUEST)
            assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
            present[0] = "new"
            assert (await client.score(REQUEST)).total_blocks == 4
        named = Tls(authority.file.read_bytes(), chain.read_bytes(), key.read_bytes(), "localhost")
        two = [address, address]
        async with either_client(kind, two, tls=named, token="new") as client:
            assert (await client.score(REQUEST)).total_blocks == 4
        async with either_client(kind, address, tls=Tls(authority.file.read_bytes())) as client:
            with pytest.raises(UnavailableError):  # the service wants a certificate
                await client.score(REQUEST)


async def test_a_call_says_who_calls_and_until_when(kind: str) -> None:
    async with (
        flaky_server() as server,
        either_client(kind, server.address, token="secret") as client,
    ):
        await client.score(REQUEST, timeout=30)
    (metadata,) = server.metadata
    assert metadata["authorization"] == "Bearer secret"
    assert str(metadata["user-agent"]).startswith("kvatlas-client/0.")


async def test_a_timeout_of_nothing_is_refused_here(kind: str) -> None:
    async with either_client(kind, "127.0.0.1:1") as client:
        for timeout in (0, -1.0, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                await client.score(REQUEST, timeout=timeout)
