"""ScoringService: prompts -> scores of pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc
from typing_extensions import override

from indexer import PromptKeys
from service.rpc.errors import KNOWN_ERRORS, InvalidRequestError, NthRequestError, UnknownModelError
from service.rpc.trust_states import TRUST_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from grpc.aio import ServicerContext

    from indexer import Index, KeyScheme
    from service.diagnostics import UnmatchedPrompts
    from service.replication import PromptMatch, Replica
    from service.rpc.prompts import PromptReader


class ScoringServicer(scoring_pb2_grpc.ScoringServiceServicer):
    """Answers `Score` and `ScoreMany`.

    Once a prompt is tokenized, nothing waits for a pod. A call waits for the store if the index is
    shared and this process's copy of it is too old.
    """

    def __init__(
        self,
        index: Index,
        replica: Replica,
        prompts: PromptReader,
        scheme_of: Callable[[str], KeyScheme],
        configured_models: Collection[str],
        unmatched: UnmatchedPrompts,
    ) -> None:
        self._index = index
        self._replica = replica
        self._prompts = prompts
        self._scheme_of = scheme_of
        self._configured_models = configured_models
        self._unmatched = unmatched

    @override
    async def Score(
        self,
        request: scoring_pb2.ScoreRequest,
        context: ServicerContext[scoring_pb2.ScoreRequest, scoring_pb2.ScoreResponse],
    ) -> scoring_pb2.ScoreResponse:
        return await self._score(request, context.time_remaining())

    @override
    async def ScoreMany(
        self,
        request: scoring_pb2.ScoreManyRequest,
        context: ServicerContext[scoring_pb2.ScoreManyRequest, scoring_pb2.ScoreManyResponse],
    ) -> scoring_pb2.ScoreManyResponse:
        responses = []
        for index, one in enumerate(request.requests):
            try:
                responses.append(await self._score(one, context.time_remaining()))
            except KNOWN_ERRORS as error:
                raise NthRequestError(index, error) from error
        return scoring_pb2.ScoreManyResponse(responses=responses)

    async def _score(
        self, request: scoring_pb2.ScoreRequest, timeout: float | None
    ) -> scoring_pb2.ScoreResponse:
        model = request.model
        self._check_model(model)
        tokens, items, salt = await self._prompts.read_score(request, timeout)
        prompt = PromptKeys(self._scheme_of(model), tokens, request.lora_name, items, salt)
        matched = await self._replica.match(model, prompt)
        response = scoring_pb2.ScoreResponse(
            total_blocks=prompt.tokens // prompt.block_size,
            total_tokens=prompt.tokens,
            block_size=prompt.block_size,
            copy_behind_seconds=matched.copy_behind_seconds,
        )
        any_held = _add_pods(response, matched, request.pods or matched.pods)
        if response.total_blocks:
            self._unmatched.record(model, matched=any_held)
        return response

    def _check_model(self, model: str) -> None:
        if not model:
            raise InvalidRequestError("model is not set")
        if not self._index.pods_of(model) and model not in self._configured_models:
            raise UnknownModelError(model, [*self._index.models(), *self._configured_models])


def _add_pods(
    response: scoring_pb2.ScoreResponse, matched: PromptMatch, pods: Collection[str]
) -> bool:
    """Add the scores of `pods` to the response. Returns whether any of them holds a block."""
    any_held = False
    block_size, add = response.block_size, response.pods.add
    best_of, status_of, now = matched.match.best_of, matched.status_of, matched.now
    for pod in pods:
        best = best_of(pod)
        if best is None:
            response.unknown_pods.append(pod)
            continue
        state, reason, silent, as_of = status_of(best.worker, now)
        score = add(
            pod=pod,
            rank=best.worker.rank,
            trust_state=TRUST_STATES[state],
            trust_reason=reason,
            silent_seconds=silent,
            as_of_sequence=as_of,
        )
        # Fields that are zero are not set: setting one costs more than asking.
        if best.reusable_is_bound:
            score.reusable_is_bound = True
        if best.reusable_tokens:
            score.reusable_tokens = best.reusable_tokens
        blocks = best.matched_blocks
        if blocks:
            any_held = True
            score.score = best.score
            score.matched_blocks = blocks
            score.matched_tokens = blocks * block_size
            for tier, count in best.by_tier.items():
                score.matched_blocks_by_tier[tier] = count
    return any_held
