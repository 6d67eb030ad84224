"""What an engine tells of itself, whichever engine it is."""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST_DETAIL = 300  # characters: it may quote what a stranger has sent


class EngineAnswerError(Exception):
    """An engine cannot be asked, or does not answer as engines do; `why` is one word, to count."""

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(detail[:_LONGEST_DETAIL])
        self.why = why


@dataclass(frozen=True)
class EventPublisher:
    """Where one data-parallel rank publishes its KV events, as the engine says."""

    rank: int
    endpoint: str
    """A ZMQ address; its host may be a wildcard."""
    replay: str = ""
    """Of the replay socket, likewise; empty: there is none."""
    topic: str = ""


@dataclass(frozen=True)
class EngineFacts:
    """What a model server was started with."""

    engine: str
    """vllm or sglang."""
    version: str
    models: tuple[str, ...]
    """The names of its model, of which callers use the first."""
    adapters: tuple[str, ...] = ()
    """The LoRA adapters that are loaded."""
    root: str = ""
    """Where the model's files came from: a path, or a name on the hub."""
    block_size: int | None = None
    """Tokens of a block, as events have it; None: it was not told."""
    prefix_caching: bool | None = None
    """Whether prompts' blocks are kept for others; None: it was not told."""
    publishers: tuple[EventPublisher, ...] = ()
    """One for each rank; none if the engine publishes no events."""
