"""The methods of ExplainService."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvatlas.v1 import explain_pb2_grpc
from typing_extensions import override

from service.explaining import AskedPrompt
from service.rpc.bounds import LongWork
from service.rpc.errors import (
    InvalidRequestError,
    TooLargeError,
    UnknownModelError,
    UnknownPodError,
)
from service.rpc.explain.answer import answer_of, steps_of
from service.rpc.explain.blocks import found_blocks
from service.rpc.explain.prompt import MOST_CHARACTERS, explained_prompt
from service.rpc.explain.read_fields import ReadFields
from service.rpc.explain.unknown import unknown_pods
from service.rpc.explain.unused import MOST_FIELDS, unused_fields
from tokenization import RequestBody

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpc.aio import ServicerContext
    from kvatlas.v1 import explain_pb2

    from indexer import KeyScheme, Worker
    from service.diagnostics import Diagnostics
    from service.explaining import BlockLookups, Explainer
    from service.replication import Replica
    from service.rpc.bounds import CallBounds
    from service.rpc.explain.room import ExplainRoom
    from service.rpc.prompts import PromptReader
    from service.rpc.scoring import Scorer

_MOST_BLOCKS = 64  # of a LookupBlocks


@dataclass(frozen=True, slots=True)
class ExplainSources:
    """What explanations are made from, at every listener."""

    replica: Replica
    scorer: Scorer
    prompts: PromptReader
    scheme_of: Callable[[str], KeyScheme]
    diagnostics: Diagnostics
    explainer: Explainer
    lookups: BlockLookups
    room: ExplainRoom


class ExplainServicer(explain_pb2_grpc.ExplainServiceServicer):
    """Answers `Explain` and `LookupBlocks`.

    Args:
        sources: what explanations are made from.
        bounds: of the calls of one listener.
        tries_salts: whether its callers may learn that a prompt is held under a salt of others.
            Salts are there so that nobody finds out by asking.
    """

    def __init__(self, sources: ExplainSources, bounds: CallBounds, *, tries_salts: bool) -> None:
        self._sources = sources
        self._bounds = bounds
        self._tries_salts = tries_salts

    @override
    async def Explain(
        self,
        request: explain_pb2.ExplainRequest,
        context: ServicerContext[explain_pb2.ExplainRequest, explain_pb2.ExplainResponse],
    ) -> explain_pb2.ExplainResponse:
        with self._sources.room.place():
            work = LongWork(self._bounds.turns, context)
            await work.first_slice()
            return await self._explain(request, work)

    async def _explain(
        self, request: explain_pb2.ExplainRequest, work: LongWork
    ) -> explain_pb2.ExplainResponse:
        sources, score, began = self._sources, request.score, time.perf_counter()
        options, weights = sources.scorer.options_of(score)
        prompt = sources.prompts.score_prompt(score.prompt)
        if isinstance(prompt, RequestBody):
            prompt = replace(prompt, body=ReadFields(prompt.body))
        read = time.perf_counter()
        tokens, items, salt, tokenized = await sources.prompts.read_prompt(score, prompt, work)
        described = await sources.prompts.describe(score.model, prompt, tokenized)
        scheme = sources.scheme_of(score.model)
        asked = AskedPrompt(
            *(score.model, scheme, tokens, score.lora_name, items, salt), weights.by_tier
        )
        steps = [("read", read - began), ("tokenize", time.perf_counter() - read)]
        wanted = None
        if options.pods is not None:
            wanted = dict.fromkeys([*options.pods, *(pod for pod, _ in options.ranks)])
        explanation = await sources.explainer.explain(
            asked, wanted, work, tries_salts=self._tries_salts
        )
        answer = answer_of(explanation, sources.diagnostics.findings())
        workers = sources.replica.workers.models()
        answer.unknown_pods.extend(
            await unknown_pods(explanation.unknown, score.model, workers, work)
        )
        answer.prompt.CopyFrom(explained_prompt(score, asked, explanation.keys, described))
        answer.unused_fields.extend(unused_fields(score, prompt, described, asked))
        answer.steps.extend(steps_of([*steps, *explanation.steps]))
        answer.is_cut |= len(described.text) > MOST_CHARACTERS
        answer.is_cut |= len(answer.unused_fields) == MOST_FIELDS
        return answer

    @override
    async def LookupBlocks(
        self,
        request: explain_pb2.LookupBlocksRequest,
        context: ServicerContext[explain_pb2.LookupBlocksRequest, explain_pb2.LookupBlocksResponse],
    ) -> explain_pb2.LookupBlocksResponse:
        asked = len(request.keys) + len(request.engine_hashes)
        if not asked:
            raise InvalidRequestError("keys and engine_hashes are empty: there is nothing to find")
        if asked > _MOST_BLOCKS:
            raise TooLargeError(f"there are {asked} blocks, the limit is {_MOST_BLOCKS}", "")
        with self._sources.room.place():
            work = LongWork(self._bounds.turns, context)
            await work.first_slice()
            keys, hashes = array("Q", request.keys), array("Q", request.engine_hashes)
            workers = self._workers(request.model, request.pod)
            found = await self._sources.lookups.find(workers, keys, hashes, work)
            return found_blocks(found, has_all_blocks=self._sources.replica.has_all_blocks)

    def _workers(self, model: str, pod: str) -> list[tuple[Worker, str]]:
        """Return the workers of a model and a pod. Raises UnknownModelError, UnknownPodError."""
        known = dict(self._sources.replica.workers.models())
        if model and model not in known.values():
            raise UnknownModelError(model, set(known.values()))
        found = [
            (worker, serves)
            for worker, serves in known.items()
            if model in ("", serves) and pod in ("", worker.pod)
        ]
        if pod and not found:
            raise UnknownPodError(pod, {worker.pod for worker in known})
        return found
