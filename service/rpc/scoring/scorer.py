"""One prompt -> the scores of pods, encoded."""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING, NamedTuple

from kvatlas.v1 import scoring_pb2
from kvatlas.v1.scoring_pb2 import PartialAnswer

from indexer import PromptKeys
from service.kernel import PodScoreWriter, ScoresForm
from service.routing import Promises, ScoredKeys
from service.rpc.bounds.names import check_name
from service.rpc.errors import (
    CallTooLargeError,
    InvalidRequestError,
    UnknownModelError,
)
from service.rpc.scoring.budget import LatencyBudget
from service.rpc.scoring.options import ScoreOptions, TierWeights
from service.rpc.trust_states import TRUST_STATES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from indexer import Index, KeyScheme
    from service.diagnostics import UnmatchedPrompts
    from service.kernel import AnsweredWorkers, WrittenScores
    from service.metrics import AnswerMetrics
    from service.replication import PromptMatch, Replica
    from service.routing import Routing
    from service.rpc.bounds import LongWork
    from service.rpc.model_names import ModelNames
    from service.rpc.prompts import PromptReader

_TOKENS_AT_ONCE = 65_536  # of a prompt, whose keys take less than a millisecond; with items, four
_BYTES_AT_ONCE = 65_536  # of a request, which has no more token ids than bytes
_TOKEN_ID_FIELDS = {"token_ids", "packed_token_ids"}


class ModelWeights(NamedTuple):
    """What blocks add to scores, as configured."""

    configured: Mapping[str, Mapping[str, float]]
    """Configured model -> tier -> weight, where it is not that of all models."""
    speculative: float
    """The weight of speculative blocks."""


class ScoredPrompt(NamedTuple):
    """The answer about one prompt."""

    encoded: bytes
    """A `ScoreResponse`."""
    tokens: int
    """Tokens of the prompt."""


class Scorer:
    """Scores prompts.

    Once a prompt is tokenized, nothing waits for a pod. A call waits for the store if the index is
    shared and this process's copy of it is too old. Long calls work in slices, see `bounds.turns`.
    """

    def __init__(
        self,
        index: Index,
        replica: Replica,
        prompts: PromptReader,
        scheme_of: Callable[[str], KeyScheme],
        models: ModelWeights,
        unmatched: UnmatchedPrompts,
        answers: AnswerMetrics,
        routing: Routing,
        names: ModelNames,
    ) -> None:
        self._names = names
        self._index = index
        self._replica = replica
        self._prompts = prompts
        self.limits = prompts.limits
        self._scheme_of = scheme_of
        self._configured_models = frozenset(models.configured)
        self._default_weights = TierWeights({}, models.speculative)
        self._weights = {
            model: self._default_weights.over(weights)
            for model, weights in models.configured.items()
        }
        self._unmatched = unmatched
        self._answers = answers
        self._routing = routing
        self._writer = PodScoreWriter(TRUST_STATES)

    def is_immediate(self, request: scoring_pb2.ScoreRequest, size: int) -> bool:
        """Whether `score` has nothing to wait for, and takes a millisecond at most.

        size: bytes of the request.
        """
        if size > _BYTES_AT_ONCE or self._replica.may_wait:
            return False
        return _has_token_ids(request.prompt)

    async def score(
        self, request: scoring_pb2.ScoreRequest, work: LongWork, tokens_left: int
    ) -> ScoredPrompt:
        """Score the prompt of a request.

        tokens_left: how many tokens the prompt may have.

        Raises KNOWN_ERRORS.
        """
        budget = LatencyBudget(request.budget_ms)
        options, weights = self.options_of(request)
        model = request.model
        prompt, cut = await self._read(request, weights, budget, work)
        self._check_count(prompt, tokens_left)
        total_tokens = prompt.tokens
        if total_tokens > _TOKENS_AT_ONCE:
            prompt, cut = await self._make_keys(prompt, budget, work)
        matched = await self._match(model, prompt, budget.ends_at)
        # Without a pause from here on, in which pods could leave.
        scored = prompt.tokens
        if matched.is_late:
            cut, scored = PartialAnswer.STEP_STORE, 0
        written = self._write(request, options, weights, matched, prompt, total_tokens)
        response = scoring_pb2.ScoreResponse(
            total_blocks=total_tokens // prompt.block_size,
            total_tokens=total_tokens,
            block_size=prompt.block_size,
            copy_behind_seconds=matched.copy_behind_seconds,
            best=written.best,
            partial=PartialAnswer(step=cut, scored_tokens=scored) if cut else None,
        )
        if written.answered is not None and prompt.tokens >= prompt.block_size:
            response.handle = self._handle(model, prompt, total_tokens, written, written.answered)
        if response.total_blocks and matched.pods and not cut:
            self._answers.matched(written.longest, response.total_blocks, written.trust_state)
            self._unmatched.record(model, matched=written.longest > 0)
        return self._answer(response, written, total_tokens)

    def options_of(self, request: scoring_pb2.ScoreRequest) -> tuple[ScoreOptions, TierWeights]:
        """Check all of a request but its prompt; return its options and what blocks weigh.

        If engines serve the model, or an adapter of it, under the name that the request gives, the
        request is changed to name the model, and the adapter.

        Raises RequestError.
        """
        options = ScoreOptions.of(request, self.limits)
        meaning = self._names.meaning(request.model)
        if meaning is not None:
            _name_model(request, *meaning)
        self._check_model(request.model, options)
        weights = self._weights.get(request.model, self._default_weights)
        return options, weights.over(options.weights)

    # The steps, which a traced call has spans for

    def _make_keys(
        self, prompt: PromptKeys, budget: LatencyBudget, work: LongWork
    ) -> Awaitable[tuple[PromptKeys, PartialAnswer.Step | None]]:
        return _make_keys(prompt, budget, work)

    def _match(self, model: str, prompt: PromptKeys, until: float | None) -> Awaitable[PromptMatch]:
        return self._replica.match(model, prompt, until)

    def _write(
        self,
        request: scoring_pb2.ScoreRequest,
        options: ScoreOptions,
        weights: TierWeights,
        matched: PromptMatch,
        prompt: PromptKeys,
        total_tokens: int,
    ) -> WrittenScores:
        form = ScoresForm(
            prompt.block_size,
            total_tokens // prompt.block_size,
            request.only_holders,
            request.max_pods,
            request.by_rank,
            weights.speculative,
            request.want_handle,
        )
        return self._writer.write(
            matched.match,
            matched.pods if options.pods is None else options.pods,
            matched.status_of,
            matched.now,
            form,
            options.ranks,
            self._routing.decisions.match(request.model, prompt),
        )

    async def _read(
        self,
        request: scoring_pb2.ScoreRequest,
        weights: TierWeights,
        budget: LatencyBudget,
        work: LongWork,
    ) -> tuple[PromptKeys, PartialAnswer.Step | None]:
        """Tokenize the prompt; without tokens if that took longer than the budget."""
        scheme = self._scheme_of(request.model)
        try:
            if budget.ends_at is None or _has_token_ids(request.prompt):
                tokens, items, salt, _ = await self._prompts.read_score(request, work)
            else:
                async with asyncio.timeout_at(budget.ends_at):
                    tokens, items, salt, _ = await self._prompts.read_score(request, work)
        except TimeoutError:
            return PromptKeys(scheme, array("Q")), PartialAnswer.STEP_TOKENIZE
        prompt = PromptKeys(scheme, tokens, request.lora_name, items, salt, weights.by_tier)
        return prompt, None

    def _handle(
        self,
        model: str,
        prompt: PromptKeys,
        total_tokens: int,
        written: WrittenScores,
        answered: AnsweredWorkers,
    ) -> bytes:
        """Return a handle for what was scored; empty if there is no room for it."""
        size = prompt.block_size
        prompt.block_keys(size)
        unknown = dict.fromkeys([*written.unknown, *(pod for pod, _ in written.unknown_ranks)])
        promises, tokens = Promises(*answered), total_tokens
        return self._routing.handles.add(
            ScoredKeys(model, size, prompt.known_keys, promises, tokens, list(unknown))
        )

    def _answer(
        self, response: scoring_pb2.ScoreResponse, written: WrittenScores, tokens: int
    ) -> ScoredPrompt:
        for pod in written.unknown:
            check_name("pods", pod, self.limits.name_bytes)
        response.unknown_pods.extend(written.unknown)
        for pod, rank in written.unknown_ranks:
            check_name("ranks", pod, self.limits.name_bytes)
            response.unknown_ranks.add(pod=pod, rank=rank)
        # The encodings of a message's parts, one after the other, are that of the message.
        return ScoredPrompt(written.encoded + response.SerializeToString(), tokens)

    def _check_count(self, prompt: PromptKeys, tokens_left: int) -> None:
        if prompt.tokens > tokens_left:
            raise CallTooLargeError(
                f"the prompts have more than {self.limits.call_tokens} tokens together",
                "call_tokens",
            )

    def _check_model(self, model: str, options: ScoreOptions) -> None:
        """Refuse a model that no pod serves, unless pods are named: these are unknown then."""
        if not model:
            raise InvalidRequestError("model is not set")
        if (
            options.pods is None
            and model not in self._configured_models
            and not self._index.pods_of(model)
        ):
            raise UnknownModelError(model, {*self._index.models(), *self._configured_models})


def _name_model(request: scoring_pb2.ScoreRequest, model: str, adapter: str) -> None:
    """Replace a name that engines serve by what it stands for."""
    if adapter and request.lora_name not in {"", adapter}:
        raise InvalidRequestError(
            f"lora_name is {request.lora_name!r}, but {request.model!r} is an adapter itself"
        )
    request.model, request.lora_name = model, adapter or request.lora_name


def _has_token_ids(prompt: scoring_pb2.Prompt) -> bool:
    return prompt.WhichOneof("input") in _TOKEN_ID_FIELDS


async def _make_keys(
    prompt: PromptKeys, budget: LatencyBudget, work: LongWork
) -> tuple[PromptKeys, PartialAnswer.Step | None]:
    """Make the keys of a long prompt in slices; of what the budget leaves time for."""
    for made in prompt.make_keys(_TOKENS_AT_ONCE // (1 if prompt.has_plain_keys else 4)):
        if budget.is_over and made < prompt.tokens:
            return prompt.made_so_far(), PartialAnswer.STEP_KEYS
        await work.pause()
    return prompt, None
