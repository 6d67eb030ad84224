"""What an SGLang server tells: /v1/models and /server_info."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.engines.facts import EngineAnswerError, EngineFacts, EventPublisher
from service.engines.fields import number, table, text

if TYPE_CHECKING:
    from service.engines.answers import EngineAnswers
    from service.engines.models import ServedModels

_MOST_PORT = 65_535
_MOST_RANKS = 4096
_MOST_BLOCK_SIZE = 2**20


async def ask_sglang(answers: EngineAnswers, models: ServedModels) -> EngineFacts:
    """Ask what /v1/models has not told. Raises EngineAnswerError."""
    info = table(await answers.json("/server_info"), "/server_info")
    events = info.get("kv_events")
    described = {} if events is None else table(events, "/server_info: kv_events")
    block_size = number(described, "block_size", _MOST_BLOCK_SIZE)
    if block_size is None:
        block_size = number(info, "page_size", _MOST_BLOCK_SIZE)
    no_cache = info.get("disable_radix_cache")
    return EngineFacts(
        engine="sglang",
        version=text(info, "version"),
        models=models.names,
        adapters=models.adapters,
        root=text(info, "model_path", models.root),
        block_size=block_size or None,
        prefix_caching=not no_cache if isinstance(no_cache, bool) else None,
        publishers=() if not described else read_publishers(described),
    )


def read_publishers(events: dict[str, Any]) -> tuple[EventPublisher, ...]:
    """The publishers of all ranks. Raises EngineAnswerError."""
    if text(events, "publisher") != "zmq":
        return ()
    host = text(events, "endpoint_host", "*")
    port = number(events, "endpoint_port_base", _MOST_PORT)
    if port is None:
        raise EngineAnswerError("malformed", "/server_info: kv_events has no endpoint_port_base")
    replay = number(events, "replay_endpoint_port_base", _MOST_PORT)
    topic = text(events, "topic")
    return tuple(
        EventPublisher(
            rank,
            f"tcp://{host}:{port + rank}",
            "" if replay is None else f"tcp://{host}:{replay + rank}",
            topic,
        )
        for rank in range(number(events, "dp_size", _MOST_RANKS) or 1)
    )
