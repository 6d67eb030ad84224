"""The scoring servicer: a ScoreRequest goes in, a ScoreResponse comes out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc

from indexer import PromptKeys
from service.rpc.errors import KNOWN_ERRORS, InvalidRequestError, NthRequestError, UnknownModelError
from service.rpc.prompts import multimodal_items
from service.rpc.trust_states import TRUST_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import grpc

    from indexer import Index, KeyScheme, PrefixMatch, TrustStatus, Worker
    from service.diagnostics import UnmatchedPrompts
    from service.replication import StoreAnswer, StoreLookup, Workers
    from service.rpc.prompts import PromptReader

    StandingOf = Callable[[Worker, float], TrustStatus]


class ScoringServicer(scoring_pb2_grpc.ScoringServiceServicer):
    """Answers `Score`. Between its tokens and its answer a request never waits for a pod.

    Where the index is shared, and this process's copy of it is too old, it waits for the store.
    """

    def __init__(
        self,
        index: Index,
        workers: Workers,
        prompts: PromptReader,
        scheme_of: Callable[[str], KeyScheme],
        configured_models: Collection[str],
        unmatched: UnmatchedPrompts,
        shared: StoreLookup | None = None,
    ) -> None:
        self._index = index
        self._workers = workers
        self._shared = shared
        self._prompts = prompts
        self._scheme_of = scheme_of
        self._configured_models = configured_models
        self._unmatched = unmatched

    async def Score(  # noqa: N802
        self,
        request: scoring_pb2.ScoreRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> scoring_pb2.ScoreResponse:
        """See scoring.proto."""
        model = request.model
        self._check_model(model)
        tokens, salt = await self._prompts.read(model, request.prompt, context.time_remaining())
        salt = request.cache_salt or salt
        items = (
            multimodal_items(request.prompt, len(tokens)) if request.prompt.multimodal_items else ()
        )
        prompt = PromptKeys(self._scheme_of(model), tokens, request.lora_name, items, salt)
        response = scoring_pb2.ScoreResponse(
            total_blocks=prompt.tokens // prompt.block_size,
            total_tokens=prompt.tokens,
            block_size=prompt.block_size,
        )
        now, found = await self._ask_store(response, model, prompt)
        if found is not None:
            pods = request.pods or found.pods
            matched = _answer(response, found.match, pods, found.status_of, now)
        else:
            pods = request.pods or self._index.pods_of(model)
            match = self._index.match(model, prompt)
            matched = _answer(response, match, pods, self._workers.trust_status, now)
        if response.total_blocks:
            self._unmatched.asked(model, matched=matched)
        return response

    async def ScoreMany(  # noqa: N802
        self,
        request: scoring_pb2.ScoreManyRequest,
        context: grpc.aio.ServicerContext[
            scoring_pb2.ScoreManyRequest, scoring_pb2.ScoreManyResponse
        ],
    ) -> scoring_pb2.ScoreManyResponse:
        """See scoring.proto."""
        responses = []
        for at, each in enumerate(request.requests):
            try:
                responses.append(await self.Score(each, context))
            except KNOWN_ERRORS as error:
                raise NthRequestError(at, error) from error
        return scoring_pb2.ScoreManyResponse(responses=responses)

    def _check_model(self, model: str) -> None:
        if not model:
            raise InvalidRequestError("model is not set")
        if not self._index.pods_of(model) and model not in self._configured_models:
            raise UnknownModelError(model, [*self._index.models(), *self._configured_models])

    async def _ask_store(
        self, response: scoring_pb2.ScoreResponse, model: str, prompt: PromptKeys
    ) -> tuple[float, StoreAnswer | None]:
        """When is asked, and what the store says, None if this process's memory answers."""
        now, found, shared = time.monotonic(), None, self._shared
        if shared is None:
            return now, None
        if not shared.is_fresh(now):
            found = await shared.lookup(model, prompt)
            now = time.monotonic()
        if found is None or found.from_copy:
            behind = shared.seconds_behind(now)
            if behind is not None:
                response.copy_behind_seconds = behind
        return now, found


def _answer(
    response: scoring_pb2.ScoreResponse,
    match: PrefixMatch,
    pods: Collection[str],
    standing_of: StandingOf,
    now: float,
) -> bool:
    """Fill in the pods as of `now` (`time.monotonic`); whether any of them holds a block."""
    any_matched = False
    block_size = response.block_size
    add = response.pods.add
    for pod in pods:
        best = match.best_of(pod)
        if best is None:
            response.unknown_pods.append(pod)
            continue
        state, reason, silent, as_of = standing_of(best.worker, now)
        score = add(
            pod=pod,
            rank=best.worker.rank,
            trust_state=TRUST_STATES[state],
            trust_reason=reason,
            silent_seconds=silent,
            as_of_sequence=as_of,
        )
        if best.reusable_is_bound:
            score.reusable_is_bound = True
        if best.reusable_tokens:
            score.reusable_tokens = best.reusable_tokens
        blocks = best.matched_blocks
        if blocks:
            any_matched = True
            score.score = best.score
            score.matched_blocks = blocks
            score.matched_tokens = blocks * block_size
            for tier, count in best.by_tier.items():
                score.matched_blocks_by_tier[tier] = count
    return any_matched
