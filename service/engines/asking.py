"""Asks an engine what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.engines.answers import EngineAnswers
from service.engines.facts import EngineAnswerError
from service.engines.models import read_models
from service.engines.sglang import ask_sglang
from service.engines.vllm import ask_vllm

if TYPE_CHECKING:
    from service.engines.answers import EngineHttp
    from service.engines.facts import EngineFacts

_KINDS = {"vllm": ask_vllm, "sglang": ask_sglang}


async def ask_engine(http: EngineHttp, url: str) -> EngineFacts:
    """Ask the engine at `url` what it is: two requests for SGLang, four for vLLM.

    Raises EngineAnswerError.
    """
    answers = EngineAnswers(http, url)
    models = read_models(await answers.json("/v1/models"))
    ask = _KINDS.get(models.engine)
    if ask is None:
        raise EngineAnswerError(
            "unknown_engine", f"{url} says it is {models.engine!r}, neither vllm nor sglang"
        )
    return await ask(answers, models)
