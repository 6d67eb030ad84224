"""What an answer is to have, and what it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from array import array

    from indexer import TrustState, Worker


class ScoresForm(NamedTuple):
    """Which pods an answer has, and how they are scored."""

    block_size: int
    """Tokens of a block of the answer."""
    total_blocks: int
    """Of the prompt."""
    only_holders: bool = False
    """Leave out pods that hold nothing."""
    max_pods: int = 0
    """So many with the highest scores, best first; 0: all, in their order."""
    by_rank: bool = False
    """An entry for each rank of a pod, rather than one for its best rank."""
    speculative_weight: float = 0.0
    """What a speculative block adds to a score."""
    with_promises: bool = False
    """Return what the answer says of each worker."""


class AnsweredWorkers(NamedTuple):
    """What an answer says of the workers in it, in parallel."""

    workers: list[Worker]
    reusable_tokens: array[int]
    matched_blocks: array[int]
    is_exact: bytes
    """Whether the worker is exact, and its reusable tokens are no bound."""


class WrittenScores(NamedTuple):
    """The pods of an answer."""

    encoded: bytes
    """The field `pods` of a `ScoreResponse`, once for each pod."""
    unknown: list[str]
    """The named pods that the index does not know."""
    unknown_ranks: list[tuple[str, int]]
    """The named ranks that it does not know."""
    longest: int
    """Blocks of the longest match."""
    trust_state: TrustState | None
    """Of the first pod that has the longest match; None if nobody holds anything."""
    best: list[int]
    """Indices of the entries with the highest score; empty if all are 0."""
    answered: AnsweredWorkers | None
    """If promises are asked for."""
