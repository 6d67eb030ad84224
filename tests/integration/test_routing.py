"""Where requests were routed, and what came of it, over real channels."""

from __future__ import annotations

import asyncio
import urllib.request
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from kvatlas.v1 import routing_pb2_grpc
from kvatlas.v1.routing_pb2 import ReportOutcomeRequest, ReportOutcomesRequest
from kvatlas.v1.trust_pb2 import TRUST_STATE_DEGRADED, TRUST_STATE_EXACT
from support.deadlines import DEADLINE_SECONDS
from support.engines.publisher import Publisher
from support.services.asking import Asker, CallAsker, RefusedError, StreamAsker
from support.services.one_pod import (
    MODEL,
    POD,
    TOKENS,
    block_stored,
    frame,
    score_request,
    service_with_pod,
)
from support.services.replicated_fleet import replicated_fleet
from support.services.replicated_fleet import score_request as request_of_prompt
from support.services.running import local_configuration, running_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from kvatlas.v1.scoring_pb2 import PodScore, ScoreRequest
    from support.services.running import RunningService
    from support.stores.servers import StoreProcess

OTHER = "10.0.0.2:8000"
LONG = 60_000  # ms


@asynccontextmanager
async def two_pods(**settings: Any) -> AsyncIterator[tuple[RunningService, Publisher]]:
    """A service that holds the first of four blocks at one pod, and nothing of them at another."""
    async with service_with_pod(**settings) as (service, pod):
        pod.send(frame(0, block_stored(TOKENS[:16])))
        pod.send(frame(0, block_stored(TOKENS[16:32], 900), topic=f"kv@{OTHER}@{MODEL}"))
        await service.until_applied({(POD, 0): 0, (OTHER, 0): 0})
        yield service, pod


async def entries(asker: Asker, request: ScoreRequest) -> dict[str, PodScore]:
    return {entry.pod: entry for entry in (await asker.score(request)).pods}


async def speculative(asker: Asker, tokens: list[int]) -> dict[str, int]:
    found = await entries(asker, score_request(tokens))
    return {pod: entry.speculative_blocks for pod, entry in found.items()}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await holds():
            pass


async def routed(asker: Asker, pod: str, tokens: list[int], ttl_ms: int = LONG) -> bytes:
    """Score a prompt, record that it went to a pod, and return the handle."""
    answer = await asker.score(score_request(tokens, want_handle=True))
    await asker.record(handle=answer.handle, pod=pod, ttl_ms=ttl_ms)
    return answer.handle


async def test_the_blocks_of_a_routed_prompt_are_speculative_until_events_confirm_them(
    ways: Callable[..., Asker],
) -> None:
    async with two_pods() as (service, pod):
        asker = ways(service.channel)
        answer = await asker.score(score_request(TOKENS, want_handle=True))
        recorded = await asker.record(handle=answer.handle, pod=POD, ttl_ms=LONG)
        assert recorded.speculative_blocks == 3
        assert recorded.promised_tokens == 16
        found = await entries(asker, score_request(TOKENS + TOKENS))
        assert found[POD].matched_blocks == 1
        assert found[POD].speculative_blocks == 3
        assert found[POD].score == pytest.approx(1 + 3 * 0.8)
        assert found[POD].normalized_score == pytest.approx((1 + 3 * 0.8) / 8)
        assert found[POD].reusable_tokens == 16
        assert dict(found[POD].matched_blocks_by_tier) == {"gpu": 1}
        assert found[OTHER].speculative_blocks == 0
        # A prompt that parts from the routed one after its second block.
        assert await speculative(asker, TOKENS[:32] + [7] * 32) == {POD: 1, OTHER: 0}
        pod.send(frame(1, block_stored(TOKENS[16:48], 2, parent_block_hash=1)))
        await service.until_applied({(POD, 0): 1})
        found = await entries(asker, score_request(TOKENS))
        assert (found[POD].matched_blocks, found[POD].speculative_blocks) == (3, 1)
        pod.send(frame(2, block_stored(TOKENS[48:], 4, parent_block_hash=3)))
        removed = {"type": "BlockRemoved", "block_hashes": [2, 3, 4], "medium": "GPU"}
        pod.send(frame(3, removed))
        await service.until_applied({(POD, 0): 3})
        found = await entries(asker, score_request(TOKENS))
        assert (found[POD].matched_blocks, found[POD].speculative_blocks) == (1, 0)


async def test_the_end_of_one_decision_takes_nothing_from_another(
    ways: Callable[..., Asker],
) -> None:
    async with two_pods() as (service, _):
        asker = ways(service.channel)
        await routed(asker, POD, TOKENS[:48])
        await routed(asker, POD, TOKENS, ttl_ms=1)
        await routed(asker, OTHER, TOKENS, ttl_ms=1)

        async def only_the_first_is_left() -> bool:
            return await speculative(asker, TOKENS) == {POD: 2, OTHER: 0}

        await until(only_the_first_is_left)


async def test_a_routing_that_is_recorded_again_lasts_longer(ways: Callable[..., Asker]) -> None:
    async with two_pods() as (service, _):
        asker = ways(service.channel)
        handle = await routed(asker, POD, TOKENS, ttl_ms=20)
        await asker.record(handle=handle, pod=POD, ttl_ms=LONG)
        await routed(asker, OTHER, TOKENS, ttl_ms=40)

        async def the_second_has_expired() -> bool:
            return (await speculative(asker, TOKENS))[OTHER] == 0

        await until(the_second_has_expired)
        assert (await speculative(asker, TOKENS))[POD] == 3


async def test_a_pod_that_is_forgotten_has_no_speculative_blocks_when_it_is_back() -> None:
    async with two_pods() as (service, pod):
        asker = CallAsker(service.channel)
        await routed(asker, POD, TOKENS)
        await service.application.replica.forget_pod(POD)
        pod.send(frame(1, block_stored(TOKENS[:16])))
        await service.until_applied({(POD, 0): 1})
        assert (await speculative(asker, TOKENS))[POD] == 0


async def test_the_weight_of_speculative_blocks_is_configured_and_asked_for() -> None:
    weighed = {"name": MODEL, "tier_weights": {"speculative": 0.25}}
    async with two_pods(routing={"speculative_weight": 0.5}, models=[weighed]) as (service, _):
        asker = CallAsker(service.channel)
        await routed(asker, OTHER, TOKENS)
        found = await entries(asker, score_request(TOKENS))
        assert found[OTHER].score == pytest.approx(4 * 0.25)
        asked = score_request(TOKENS, tier_weights={"speculative": 1.0})
        answer = await asker.score(asked)
        assert [(entry.pod, entry.score) for entry in answer.pods] == [(POD, 1.0), (OTHER, 4.0)]
        assert [answer.pods[index].pod for index in answer.best] == [OTHER]
        asked.tier_weights["speculative"] = 0.0
        asked.only_holders = True
        assert set(await entries(asker, asked)) == {POD, OTHER}


async def test_a_pod_that_was_asked_for_before_it_was_heard_of_can_be_recorded(
    ways: Callable[..., Asker],
) -> None:
    async with two_pods() as (service, pod):
        asker = ways(service.channel)
        new = "10.0.0.9:8000"
        asked = score_request(TOKENS, pods=[new, POD], want_handle=True)
        answer = await asker.score(asked)
        assert list(answer.unknown_pods) == [new]
        recorded = await asker.record(handle=answer.handle, pod=new, ttl_ms=LONG)
        assert (recorded.speculative_blocks, recorded.promised_tokens) == (4, 0)
        pod.send(frame(0, block_stored(TOKENS[:16]), topic=f"kv@{new}@{MODEL}"))
        await service.until_applied({(new, 0): 0})
        found = await entries(asker, asked)
        assert (found[new].matched_blocks, found[new].speculative_blocks) == (1, 3)
        outcome = await asker.report(handle=answer.handle, cached_tokens=0)
        assert outcome.promised_tokens == 0


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"pod": POD}, 3, "REQUEST_INVALID"),
        ({"handle": b"x" * 65, "pod": POD}, 3, "REQUEST_INVALID"),
        ({"handle": b"x" * 16, "pod": POD}, 5, "HANDLE_UNKNOWN"),
        ({"handle": None, "pod": ""}, 3, "REQUEST_INVALID"),
        ({"handle": None, "pod": POD, "ttl_ms": 60_001}, 3, "REQUEST_INVALID"),
        ({"handle": None, "pod": "10.9.9.9:1"}, 5, "POD_UNKNOWN"),
        ({"handle": None, "pod": POD, "rank": 3}, 5, "POD_UNKNOWN"),
        ({"handle": None, "pod": "x" * 513}, 8, "LIMIT_EXCEEDED"),
    ],
)
async def test_a_routing_that_cannot_be_recorded_is_refused(
    ways: Callable[..., Asker], fields: dict[str, Any], code: int, reason: str
) -> None:
    async with two_pods() as (service, _):
        asker = ways(service.channel)
        answer = await asker.score(score_request(TOKENS, want_handle=True))
        given = {name: answer.handle if value is None else value for name, value in fields.items()}
        with pytest.raises(RefusedError) as refused:
            await asker.record(**given)
        assert (refused.value.code, refused.value.reason) == (code, reason)
        assert await speculative(asker, TOKENS) == {POD: 0, OTHER: 0}


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({}, 3, "REQUEST_INVALID"),
        ({"handle": b"x" * 16}, 5, "HANDLE_UNKNOWN"),
        ({"handle": None}, 9, "POD_AMBIGUOUS"),
        ({"handle": None, "pod": POD, "rank": 1}, 5, "NOT_ROUTED"),
        ({"handle": None, "pod": "10.9.9.9:1"}, 5, "NOT_ROUTED"),
    ],
)
async def test_an_outcome_that_cannot_be_counted_is_refused(
    ways: Callable[..., Asker], fields: dict[str, Any], code: int, reason: str
) -> None:
    async with two_pods() as (service, _):
        asker = ways(service.channel)
        handle = await routed(asker, POD, TOKENS)
        await asker.record(handle=handle, pod=OTHER)
        given = {name: handle if value is None else value for name, value in fields.items()}
        with pytest.raises(RefusedError) as refused:
            await asker.report(cached_tokens=1, **given)
        assert (refused.value.code, refused.value.reason) == (code, reason)


async def test_an_engine_cannot_have_more_tokens_than_the_prompt(
    ways: Callable[..., Asker],
) -> None:
    async with two_pods() as (service, _):
        asker = ways(service.channel)
        handle = await routed(asker, POD, TOKENS)
        with pytest.raises(RefusedError, match="REQUEST_INVALID"):
            await asker.report(handle=handle, cached_tokens=65)
        await asker.report(handle=handle, cached_tokens=64)


async def test_an_unrecorded_handle_has_no_outcome(ways: Callable[..., Asker]) -> None:
    async with two_pods() as (service, _):
        asker = ways(service.channel)
        answer = await asker.score(score_request(TOKENS, want_handle=True))
        with pytest.raises(RefusedError, match="NOT_ROUTED"):
            await asker.report(handle=answer.handle, cached_tokens=1)


async def test_outcomes_are_held_against_promises(ways: Callable[..., Asker]) -> None:
    async with two_pods() as (service, _):
        asker = ways(service.channel)
        promised = []
        for cached in (16, 10, 20):
            handle = await routed(asker, POD, TOKENS)
            for _ in range(2):  # reported twice, it counts once
                outcome = await asker.report(
                    handle=handle,
                    cached_tokens=cached,
                    cached_tokens_by_source={"gpu": 8, "cpu": cached - 8},
                )
                promised.append(outcome.promised_tokens)
        assert promised == [16] * 6
        delivered = (await service.pods())[POD, 0].delivered
        assert (delivered.outcomes, delivered.promised_tokens) == (3, 48)
        assert (delivered.delivered_tokens, delivered.missing_tokens) == (46, 6)
        assert dict(delivered.delivered_tokens_by_source) == {"gpu": 24, "cpu": 22}
        assert not (await service.pods())[OTHER, 0].HasField("delivered")
        labels = f'{{model="{MODEL}",pod="{POD}",rank="0"}}'
        scraped = await scrape(service)
        assert f"kvatlas_promised_tokens_total{labels} 48.0" in scraped
        assert f"kvatlas_missing_tokens_total{labels} 6.0" in scraped
        assert "kvatlas_routings_speculative 3.0" in scraped


async def scrape(service: RunningService) -> str:
    url = f"http://127.0.0.1:{service.application.metrics_port}/metrics"

    def read() -> str:
        with urllib.request.urlopen(url) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(read)


async def test_a_pod_that_delivers_too_little_is_not_exact_any_more() -> None:
    routing = {"under_delivery_share": 0.5, "under_delivery_outcomes": 4}
    async with two_pods(routing=routing) as (service, _):
        asker = StreamAsker(service.channel)
        for cached in (16, 7, 7):
            handle = await routed(asker, POD, TOKENS)
            await asker.report(handle=handle, cached_tokens=cached)
        found = await entries(asker, score_request(TOKENS))
        assert found[POD].trust_state == TRUST_STATE_EXACT
        handle = await routed(asker, POD, TOKENS)
        await asker.report(handle=handle, cached_tokens=0)  # 34 of 64 are missing now
        found = await entries(asker, score_request(TOKENS))
        assert found[POD].trust_state == TRUST_STATE_DEGRADED
        assert found[POD].trust_reason == "under_delivers"
        assert found[OTHER].trust_state == TRUST_STATE_EXACT


async def test_one_bad_request_of_a_batch_harms_no_other() -> None:
    async with two_pods() as (service, _):
        handle = await routed(CallAsker(service.channel), POD, TOKENS)
        stub = routing_pb2_grpc.RoutingServiceStub(service.channel)
        answer = await stub.ReportOutcomes(
            ReportOutcomesRequest(
                requests=[
                    ReportOutcomeRequest(handle=b"unknown"),
                    ReportOutcomeRequest(handle=handle, cached_tokens=16),
                ]
            )
        )
        assert [response.promised_tokens for response in answer.responses] == [0, 16]
        assert {index: error.code for index, error in answer.errors.items()} == {0: 5}


@pytest.mark.parametrize("copy_blocks", [True, False])
async def test_every_replica_counts_what_any_replica_is_told(
    redis: StoreProcess, copy_blocks: bool
) -> None:
    async with replicated_fleet(redis.url) as (fleet, prompts):
        for name in "abc":
            await fleet.start(name, copy_blocks=copy_blocks)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        prompt = max(prompts, key=lambda each: len(each.tokens))
        request = request_of_prompt(prompt)
        request.want_handle = True
        first, second, third = (StreamAsker(fleet.replicas[name].channel) for name in "abc")
        answer = await first.score(request)
        pod = min(answer.pods, key=lambda entry: entry.matched_blocks)
        missing = answer.total_blocks - pod.matched_blocks
        assert missing
        recorded = await second.record(handle=answer.handle, pod=pod.pod, ttl_ms=LONG)
        assert recorded.forwarded

        async def all_know() -> bool:
            found = [await entries(asker, request) for asker in (first, second, third)]
            return [each[pod.pod].speculative_blocks for each in found] == [missing] * 3

        await until(all_know)
        outcome = await third.report(handle=answer.handle, cached_tokens=5)
        assert outcome.forwarded

        async def the_first_has_counted() -> bool:
            rank = (await fleet.replicas["a"].pods())[pod.pod, pod.rank]
            return rank.delivered.delivered_tokens == 5

        await until(the_first_has_counted)
        for handle in (bytes(16), answer.handle[:8] + bytes(8), bytes(8) + answer.handle[8:]):
            if handle.startswith(answer.handle[:8]):
                assert (await second.record(handle=handle, pod=pod.pod)).forwarded
            else:
                with pytest.raises(RefusedError, match="HANDLE_UNKNOWN"):
                    await second.record(handle=handle, pod=pod.pod)
        await fleet.stop("a")

        async def the_handle_is_unknown() -> bool:
            try:
                await second.record(handle=answer.handle, pod=pod.pod)
            except RefusedError as error:
                return error.reason == "HANDLE_UNKNOWN"
            return False

        await until(the_handle_is_unknown)


async def test_events_confirm_a_routing_at_every_replica(redis: StoreProcess) -> None:
    async with AsyncExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        pod = Publisher(context)
        stack.callback(pod.close)
        sources = [{"endpoint": pod.endpoint, "pod": POD, "model": MODEL}]
        services = []
        for name in "ab":
            store = {"url": redis.url, "namespace": "confirmed", "replica": name}
            configuration = local_configuration(sources=sources, store=store)
            services.append(await stack.enter_async_context(running_service(configuration)))
        await pod.until_subscribed()
        pod.send(frame(0, block_stored(TOKENS[:16])))
        askers = [CallAsker(service.channel) for service in services]

        async def both_say(matched: int, speculative_blocks: int) -> bool:
            found = [await entries(asker, score_request(TOKENS, pods=[POD])) for asker in askers]
            said = [
                (each[POD].matched_blocks, each[POD].speculative_blocks) if each else None
                for each in found
            ]
            return said == [(matched, speculative_blocks)] * 2

        await until(lambda: both_say(1, 0))
        await routed(askers[0], POD, TOKENS)
        await until(lambda: both_say(1, 3))
        pod.send(frame(1, block_stored(TOKENS[16:], 2, parent_block_hash=1)))
        await until(lambda: both_say(4, 0))
        for service in services:  # and not only because the blocks are held
            decisions = service.application._servers._served.routing.decisions
            async with asyncio.timeout(DEADLINE_SECONDS):
                while decisions.ended["confirmed"] == 0:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.001)
            assert len(decisions) == 0
