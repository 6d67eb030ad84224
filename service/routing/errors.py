"""Why a routing is not recorded, or an outcome not counted."""

from __future__ import annotations


class RoutingError(Exception):
    """Base of the errors; the message is meant for the caller."""


class HandleUnknownError(RoutingError):
    """The handle was never given, has expired, or was dropped for want of memory."""

    def __init__(self) -> None:
        super().__init__("the handle is unknown: it has expired, or no answer had it")


class NotRoutedError(RoutingError):
    """The handle was recorded for other pods, or for none."""


class PodAmbiguousError(RoutingError):
    """The handle was recorded for several pods or ranks, and none of them is named."""


class OutcomeError(RoutingError):
    """An engine cannot have had so many tokens of the prompt."""

    def __init__(self, cached: int, tokens: int) -> None:
        super().__init__(f"cached_tokens is {cached}, and the prompt has {tokens} tokens")


class SpeculationFullError(RoutingError):
    """Speculative blocks take all the memory that they may."""

    def __init__(self, blocks: int) -> None:
        super().__init__(
            f"speculative blocks take all the memory of routing.memory; there are {blocks} more"
        )


class UnknownRankError(RoutingError):
    """The pod, or this rank of it, does not serve the model."""

    def __init__(self, pod: str, rank: int | None, model: str) -> None:
        what = f"pod {pod!r}" if rank is None else f"rank {rank} of pod {pod!r}"
        super().__init__(f"there is no {what} that serves {model!r}, and no such pod was asked for")
        self.pod, self.rank, self.model = pod, rank, model
