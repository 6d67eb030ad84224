"""What a ScoreRequest asks for, besides its prompt: pods, ranks, weights; checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from service.rpc.bounds.names import check_name
from service.rpc.errors import InvalidRequestError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kvatlas.v1 import scoring_pb2

    from service.config import LimitsSection

_MOST_WEIGHTS = 64
SPECULATIVE = "speculative"
"""Stands for speculative blocks among the names of tiers."""


class TierWeights(NamedTuple):
    """What a block adds to a score, where it is not what the index has."""

    by_tier: Mapping[str, float]
    speculative: float

    def over(self, weights: Mapping[str, float]) -> TierWeights:
        """Return these weights where `weights`, which may name `speculative`, has none."""
        if not weights:
            return self
        by_tier = {**self.by_tier, **weights}
        return TierWeights(by_tier, by_tier.pop(SPECULATIVE, self.speculative))


class ScoreOptions(NamedTuple):
    """The checked options of one request."""

    pods: Collection[str] | None
    """Names, each once; None: every pod of the model."""
    ranks: Sequence[tuple[str, int]]
    weights: Mapping[str, float]

    @classmethod
    def of(cls, request: scoring_pb2.ScoreRequest, limits: LimitsSection) -> ScoreOptions:
        """Check the options of a request. Raises InvalidRequestError, TooLargeError."""
        check_name("lora_name", request.lora_name, limits.name_bytes)
        named = len(request.pods) + len(request.ranks)
        if named > limits.pods:
            raise TooLargeError(
                f"the request names {named} pods and ranks, the limit is {limits.pods}", "pods"
            )
        ranks = dict.fromkeys((each.pod, each.rank) for each in request.ranks)
        pods = dict.fromkeys(request.pods) if named else None
        weights = request.tier_weights
        return cls(pods, list(ranks), _checked(weights, limits) if weights else {})


def _checked(weights: Mapping[str, float], limits: LimitsSection) -> Mapping[str, float]:
    if len(weights) > _MOST_WEIGHTS:
        raise InvalidRequestError(
            f"tier_weights has {len(weights)} entries, the limit is {_MOST_WEIGHTS}"
        )
    for tier, weight in weights.items():
        check_name("tier_weights", tier, limits.name_bytes)
        if not 0 <= weight <= 1:
            raise InvalidRequestError(f"tier_weights[{tier!r}] is {weight}, not from 0 to 1")
    return dict(weights)
