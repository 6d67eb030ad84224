"""What /v1/models tells, which vLLM and SGLang have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.engines.facts import EngineAnswerError
from service.engines.fields import table, text

_MOST_MODELS = 1024


@dataclass(frozen=True)
class ServedModels:
    """The models of a server."""

    engine: str
    """Who says so: vllm or sglang; empty if it does not say."""
    names: tuple[str, ...]
    adapters: tuple[str, ...]
    root: str


def read_models(answer: Any) -> ServedModels:
    """The models in an answer of /v1/models. Raises EngineAnswerError."""
    cards = table(answer, "/v1/models").get("data")
    if not isinstance(cards, list) or len(cards) > _MOST_MODELS:
        raise EngineAnswerError("malformed", "/v1/models has no list of models")
    cards = [table(card, "/v1/models: a model") for card in cards]
    base = [card for card in cards if not card.get("parent")]
    names = tuple(name for card in base if (name := text(card, "id")))
    if not names:
        raise EngineAnswerError("no_model", "/v1/models lists no model")
    return ServedModels(
        engine=text(base[0], "owned_by"),
        names=names,
        adapters=tuple(text(card, "id") for card in cards if card.get("parent")),
        root=text(base[0], "root"),
    )
