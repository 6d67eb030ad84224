"""What a ScoreRequest asks for besides its prompt: ranks, weights, a latency budget, cold pods."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import msgpack
import pytest
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc
from kvatlas.v1.routing_pb2 import PodRank
from kvatlas.v1.scoring_pb2 import PartialAnswer
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.deadlines import DEADLINE_SECONDS
from support.services.asking import Asker, CallAsker, RefusedError
from support.services.one_pod import (
    MODEL,
    POD,
    TOKENS,
    block_stored,
    frame,
    score,
    score_request,
    service_with_pod,
)
from support.services.replicated_fleet import replicated_fleet
from support.services.replicated_fleet import score_request as request_of_prompt

from service.replication import SharedReplica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kvatlas.v1.scoring_pb2 import ScoreResponse
    from support.services.running import RunningService
    from support.stores.servers import StoreProcess

OTHER = "10.0.0.2:8000"


class NeverEnds:
    """Takes the place of the tokenizers."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def tokenize(self, *_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1


def of_rank(sequence: int, rank: int, *events: dict[str, Any], pod: str = POD) -> list[bytes]:
    topic, number, _ = frame(sequence, topic=f"kv@{pod}@{MODEL}")
    return [topic, number, msgpack.packb([1.0, list(events), rank])]


@asynccontextmanager
async def ranks_of_pods(**source: Any) -> AsyncIterator[RunningService]:
    """A pod whose rank 1 holds two blocks on the GPU, rank 0 three on the CPU; another with one."""
    bound = {"endpoint": "tcp://127.0.0.1:0", "bind": True, **source}
    async with service_with_pod(sources=[bound]) as (service, pod):
        pod.send(of_rank(0, 1, block_stored(TOKENS[:32])))
        pod.send(of_rank(0, 0, block_stored(TOKENS[:48], medium="CPU")))
        pod.send(of_rank(0, 0, block_stored(TOKENS[:16]), pod=OTHER))
        names = {(POD, 0), ("10.0.0.1:8001" if source else POD, 1), (OTHER, 0)}
        await service.until_applied(dict.fromkeys(names, 0))
        yield service


def shown(answer: ScoreResponse) -> list[tuple[str, int, int, float]]:
    return [(each.pod, each.rank, each.matched_blocks, each.score) for each in answer.pods]


async def test_each_rank_of_a_pod_is_answered_by_itself_if_that_is_asked_for(
    ways: Callable[..., Asker],
) -> None:
    async with ranks_of_pods() as service:
        asker = ways(service.channel)
        best = [(POD, 0, 3, pytest.approx(2.4)), (OTHER, 0, 1, 1.0)]
        first, second = best[0], (POD, 1, 2, 2.0)
        answer = await asker.score(score_request(TOKENS))
        assert shown(answer) == best
        assert list(answer.best) == [0]
        answer = await asker.score(score_request(TOKENS, by_rank=True))
        assert shown(answer) == [first, second, best[1]]
        answer = await asker.score(score_request(TOKENS, by_rank=True, max_pods=2))
        assert shown(answer) == [first, second]
        named = [PodRank(pod=POD, rank=1), PodRank(pod=POD, rank=7), PodRank(pod="no:1", rank=0)]
        answer = await asker.score(score_request(TOKENS, ranks=named))
        assert shown(answer) == [second]
        assert [(each.pod, each.rank) for each in answer.unknown_ranks] == [(POD, 7), ("no:1", 0)]
        answer = await asker.score(score_request(TOKENS, ranks=named[:1] * 2, pods=[OTHER, OTHER]))
        assert shown(answer) == [best[1], second]
        assert list(answer.best) == [1]


async def test_ranks_can_be_pods_with_ports_of_their_own() -> None:
    async with ranks_of_pods(rank_ports=True) as service:
        answer = await score(service, score_request(TOKENS))
        assert {each[:3] for each in shown(answer)} == {
            (POD, 0, 3),
            ("10.0.0.1:8001", 1, 2),
            (OTHER, 0, 1),
        }
        asked = score_request(TOKENS, pods=["10.0.0.1:8001"], want_handle=True)
        answer = await score(service, asked)
        recorded = await CallAsker(service.channel).record(
            handle=answer.handle, pod="10.0.0.1:8001"
        )
        assert recorded.speculative_blocks == 2


async def test_weights_are_those_of_the_request_then_of_the_model_then_of_all() -> None:
    weighed = {"name": MODEL, "tier_weights": {"cpu": 0.5}}
    async with service_with_pod(models=[weighed]) as (service, pod):
        pod.send(frame(0, block_stored(TOKENS[:32], medium="CPU"), block_stored(TOKENS[:16], 50)))
        await service.until_applied({(POD, 0): 0})

        async def scored(**weights: float) -> float:
            answer = await score(service, score_request(TOKENS, tier_weights=weights))
            (entry,) = answer.pods
            assert entry.normalized_score == pytest.approx(entry.score / 4)
            return entry.score

        assert await scored() == pytest.approx(1.5)
        assert await scored(gpu=0.1) == pytest.approx(1.0)  # block 0 is worth more on the CPU
        assert await scored(cpu=0.25) == pytest.approx(1.25)
        assert await scored(cpu=0.0, gpu=0.0) == 0
        assert await scored(tape=1.0) == pytest.approx(1.5)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf")])
async def test_a_weight_must_lie_between_0_and_1(
    service: RunningService, ways: Callable[..., Asker], weight: float
) -> None:
    with pytest.raises(RefusedError, match="from 0 to 1"):
        await ways(service.channel).score(
            score_request(TOKENS, pods=[POD], tier_weights={"gpu": weight})
        )


async def test_pods_that_nobody_has_heard_of_are_an_answer(
    service: RunningService, ways: Callable[..., Asker]
) -> None:
    answer = await ways(service.channel).score(
        score_request(TOKENS, pods=[POD, OTHER], ranks=[PodRank(pod=POD, rank=1)], want_handle=True)
    )
    assert list(answer.unknown_pods) == [POD, OTHER]
    assert [each.pod for each in answer.unknown_ranks] == [POD]
    assert (answer.total_blocks, answer.total_tokens, len(answer.pods)) == (4, 64, 0)
    with pytest.raises(RefusedError, match="MODEL_UNKNOWN"):
        await ways(service.channel).score(score_request(TOKENS))


async def test_a_long_prompt_is_scored_as_far_as_the_budget_lasts() -> None:
    async with service_with_pod() as (service, pod):
        pod.send(frame(0, block_stored(TOKENS)))
        await service.until_applied({(POD, 0): 0})
        tokens = TOKENS + [7] * 1_000_000
        answer = await score(service, score_request(tokens, budget_ms=1))
        assert answer.partial.step == PartialAnswer.STEP_KEYS
        assert 0 < answer.partial.scored_tokens < len(tokens)
        assert (answer.total_tokens, answer.total_blocks) == (len(tokens), len(tokens) // 16)
        (entry,) = answer.pods
        assert entry.matched_blocks == 4
        answer = await score(service, score_request(TOKENS, budget_ms=1))
        assert not answer.HasField("partial")


async def test_a_text_that_is_not_tokenized_in_time_is_answered_with_trust_alone(
    ways: Callable[..., Asker], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service_with_pod() as (service, pod):
        pod.send(frame(0, block_stored(TOKENS)))
        await service.until_applied({(POD, 0): 0})
        waits = NeverEnds()
        monkeypatch.setattr(service.application.tokenizers, "tokenize", waits.tokenize)
        request = scoring_pb2.ScoreRequest(model=MODEL, budget_ms=5, want_handle=True)
        request.prompt.text = "slow"
        answer = await ways(service.channel).score(request)
        assert answer.partial == PartialAnswer(step=PartialAnswer.STEP_TOKENIZE)
        (entry,) = answer.pods
        assert (entry.matched_blocks, entry.trust_state) == (0, TRUST_STATE_EXACT)
        assert (answer.total_blocks, answer.handle) == (0, b"")
        assert waits.cancelled == 1


async def test_a_store_that_is_late_leaves_what_is_known_here(
    redis: StoreProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a copy of other replicas' blocks, only the store could say more."""
    async with replicated_fleet(redis.url) as (fleet, prompts):
        for name in "ab":
            await fleet.start(name, copy_blocks=False)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        # One that has not got all pods.
        service = min(
            fleet.replicas.values(), key=lambda each: len(each.application.listener.router.streams)
        )
        replica = service.application.replica
        assert isinstance(replica, SharedReplica)
        lookup = replica.lookup
        request = request_of_prompt(max(prompts, key=lambda each: len(each.tokens)))
        whole = {each.pod: each for each in (await score(service, request)).pods}
        monkeypatch.setattr(lookup._lookup, "match", NeverEnds().tokenize)
        request.budget_ms = 5
        answer = await score(service, request)
        assert answer.partial == PartialAnswer(step=PartialAnswer.STEP_STORE)
        own = {pod for pod, _ in service.application.listener.router.streams}
        found = {each.pod: each for each in answer.pods}
        assert own < set(found)
        for pod, entry in found.items():
            if pod in own:
                assert entry.matched_blocks == whole[pod].matched_blocks
            else:
                assert (entry.matched_blocks, entry.trust_reason) == (0, "store_late")
        assert lookup.late == 1


async def test_a_store_that_hangs_keeps_nobody_waiting_who_has_a_copy(
    redis: StoreProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even callers who give up long before the store is known to hang."""
    async with replicated_fleet(redis.url) as (fleet, prompts):
        await fleet.start("a", timeout_seconds=30)
        await fleet.until_connected()
        fleet.publish()
        await fleet.until_agreed()
        service = fleet.replicas["a"]
        replica = service.application.replica
        assert isinstance(replica, SharedReplica)
        lookup, hangs = replica.lookup, NeverEnds()
        monkeypatch.setattr(lookup, "is_copy_fresh", lambda _: False)
        monkeypatch.setattr(lookup._lookup, "match", hangs.tokenize)
        stub: Any = scoring_pb2_grpc.ScoringServiceStub(service.channel)
        request = request_of_prompt(prompts[0])
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                try:
                    answer = await stub.Score(request, timeout=0.02)
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                else:
                    break
        assert answer.HasField("copy_behind_seconds")
        for _ in range(50):
            await stub.Score(request, timeout=10)
        assert len(lookup._asking) < 50
