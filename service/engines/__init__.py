"""Asks engines what they are: which models they serve, and where their events come from.

asking       asks one engine
answers      HTTP, bounded
models       /v1/models
vllm         what else vLLM tells
sglang       what else SGLang tells
fields       values out of JSON
facts        what an engine tells, whichever it is
endpoints    where an engine's sockets are reached
sources      what an engine tells -> sources of events, and contradictions
"""

from service.engines.answers import EngineHttp
from service.engines.asking import ask_engine
from service.engines.facts import EngineAnswerError, EngineFacts, EventPublisher
from service.engines.sources import Expectations, PodSources, RankSource, sources_of

__all__ = [
    "EngineAnswerError",
    "EngineFacts",
    "EngineHttp",
    "EventPublisher",
    "Expectations",
    "PodSources",
    "RankSource",
    "ask_engine",
    "sources_of",
]
