"""What a vLLM server tells: /v1/models, /kv_event_sources, /version and its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from service.engines.facts import EngineAnswerError, EngineFacts, EventPublisher
from service.engines.fields import number, table, text

if TYPE_CHECKING:
    from service.engines.answers import EngineAnswers
    from service.engines.models import ServedModels

_MOST_RANK = 2**31 - 1
_MOST_DIGITS = 10
_LONGEST_LINE = 16_384  # of the metric: parsing it takes time that grows with the square
_MOST_BLOCK_SIZE = 2**20
_CACHE_INFO = "vllm:cache_config_info"


async def ask_vllm(answers: EngineAnswers, models: ServedModels) -> EngineFacts:
    """Ask what /v1/models has not told. Raises EngineAnswerError.

    A server without /kv_event_sources (before 0.32) has no publishers here.
    """
    sources = await answers.json_if_any("/kv_event_sources")
    version = await answers.json_if_any("/version")
    metrics = await answers.text_if_any("/metrics")
    cache = {} if metrics is None else cache_config(metrics)
    return EngineFacts(
        engine="vllm",
        version="" if version is None else text(table(version, "/version"), "version"),
        models=models.names,
        adapters=models.adapters,
        root=models.root,
        block_size=_block_size(cache),
        prefix_caching=_is_true(cache.get("enable_prefix_caching")),
        publishers=() if sources is None else read_sources(sources),
    )


def read_sources(answer: Any) -> tuple[EventPublisher, ...]:
    """The publishers in an answer of /kv_event_sources. Raises EngineAnswerError."""
    publishers: dict[int, EventPublisher] = {}
    for rank, source in table(answer, "/kv_event_sources").items():
        config = table(source, f"/kv_event_sources: rank {rank[:20]!r}")
        rank_number = number({"rank": _integer(rank, -1)}, "rank", _MOST_RANK)
        is_on = config.get("enable_kv_cache_events") and config.get("publisher") == "zmq"
        if rank_number is None or not is_on:
            continue
        if rank_number in publishers:
            raise EngineAnswerError("malformed", f"/kv_event_sources: rank {rank_number} is twice")
        publishers[rank_number] = EventPublisher(
            rank_number,
            text(config, "endpoint"),
            text(config, "replay_endpoint"),
            text(config, "topic"),
        )
    return tuple(publishers[rank] for rank in sorted(publishers))


def _integer(digits: str, default: int) -> int:
    return int(digits) if len(digits) <= _MOST_DIGITS and digits.isdecimal() else default


def cache_config(metrics: str) -> dict[str, str]:
    """The labels of vLLM's metric about its cache configuration; empty if there is none."""
    start = metrics.find("\n" + _CACHE_INFO + "{") + 1
    line = metrics[start : metrics.find("\n", start)] if start else ""
    if len(line) > _LONGEST_LINE:
        return {}
    try:
        for family in text_string_to_metric_families(line + "\n"):
            for sample in family.samples:
                return dict(sample.labels)
    except ValueError:  # as good as none
        pass
    return {}


def _block_size(cache: dict[str, str]) -> int | None:
    for name in ("effective_attention_block_size", "block_size"):
        value = _integer(cache.get(name, ""), 0)
        if 0 < value <= _MOST_BLOCK_SIZE:
            return value
    return None


def _is_true(value: str | None) -> bool | None:
    return {"True": True, "False": False}.get(value or "")
