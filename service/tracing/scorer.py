"""Spans of what is done for one prompt: block keys, lookup, scores."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kvatlas.v1.scoring_pb2 import PartialAnswer, ScoreResponse
from kvatlas.v1.trust_pb2 import TrustState
from typing_extensions import override

from indexer import MemoryPrefixMatch
from service.rpc import Scorer
from service.tracing.current import MODEL, CurrentCall, current, traced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvatlas.v1 import scoring_pb2
    from opentelemetry.trace import Span

    from indexer import PromptKeys
    from service.kernel import WrittenScores
    from service.replication import PromptMatch
    from service.rpc.bounds import LongWork
    from service.rpc.scoring import LatencyBudget, ScoredPrompt, ScoreOptions, TierWeights


class TracedScorer(Scorer):
    """Traces the prompts of traced calls."""

    @override
    async def score(
        self, request: scoring_pb2.ScoreRequest, work: LongWork, tokens_left: int
    ) -> ScoredPrompt:
        call = traced()
        if call is None:
            return await super().score(request, work, tokens_left)
        if not call.parts:
            return await self._described(call.span, request, work, tokens_left)
        with call.step("score_prompt", {}) as span:
            token = current.set(CurrentCall(call.tracer, span, call))
            try:
                return await self._described(span, request, work, tokens_left)
            finally:
                current.reset(token)

    async def _described(
        self,
        span: Span | None,
        request: scoring_pb2.ScoreRequest,
        work: LongWork,
        tokens_left: int,
    ) -> ScoredPrompt:
        """Score a prompt, and let the span tell of the answer."""
        assert span is not None  # noqa: S101
        span.set_attribute(MODEL, request.model)
        scored = await super().score(request, work, tokens_left)
        _describe(span, ScoreResponse.FromString(scored.encoded))
        return scored

    @override
    async def _make_keys(
        self, prompt: PromptKeys, budget: LatencyBudget, work: LongWork
    ) -> tuple[PromptKeys, PartialAnswer.Step | None]:
        call = traced()
        if call is None:
            return await super()._make_keys(prompt, budget, work)
        with call.step("block_keys", {"kvatlas.tokens": prompt.tokens}):
            return await super()._make_keys(prompt, budget, work)

    @override
    async def _match(self, model: str, prompt: PromptKeys, until: float | None) -> PromptMatch:
        call = traced()
        if call is None:
            return await super()._match(model, prompt, until)
        if not prompt.known_keys:  # else `_make_keys` has made them
            with call.step("block_keys", {"kvatlas.tokens": prompt.tokens}):
                prompt.block_keys(prompt.block_size)
        with call.step("lookup", {}) as span:
            matched = await super()._match(model, prompt, until)
            in_memory = isinstance(matched.match, MemoryPrefixMatch)
            span.set_attribute("kvatlas.lookup", "memory" if in_memory else "store")
            span.set_attribute("kvatlas.late", matched.is_late)
        return matched

    @override
    def _write(
        self,
        request: scoring_pb2.ScoreRequest,
        options: ScoreOptions,
        weights: TierWeights,
        matched: PromptMatch,
        prompt: PromptKeys,
        total_tokens: int,
    ) -> WrittenScores:
        arguments = (request, options, weights, matched, prompt, total_tokens)
        call = traced()
        if call is None:
            return super()._write(*arguments)
        with call.step("score", {}):
            return super()._write(*arguments)


def _describe(span: Span, answer: ScoreResponse) -> None:
    span.set_attributes(
        {
            "kvatlas.tokens": answer.total_tokens,
            "kvatlas.blocks": answer.total_blocks,
            "kvatlas.matched_blocks": max((pod.matched_blocks for pod in answer.pods), default=0),
            "kvatlas.pods": len(answer.pods),
            "kvatlas.unknown_pods": len(answer.unknown_pods),
            **_trusted(answer.pods),
        }
    )
    if answer.HasField("partial"):
        span.set_attribute("kvatlas.partial", PartialAnswer.Step.Name(answer.partial.step))
    if answer.HasField("copy_behind_seconds"):
        span.set_attribute("kvatlas.copy_behind_seconds", answer.copy_behind_seconds)


def _trusted(pods: Sequence[scoring_pb2.PodScore]) -> dict[str, int]:
    """Return how many pods there are of each trust state."""
    counts = Counter(pod.trust_state for pod in pods)
    return {
        f"kvatlas.pods.{TrustState.Name(state).removeprefix('TRUST_STATE_').lower()}": count
        for state, count in counts.items()
    }
