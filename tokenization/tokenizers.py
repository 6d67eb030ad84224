"""Texts and requests -> token ids, off the event loop, one tokenizer per model."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import structlog

from tokenization.chat import ChatOptions
from tokenization.errors import TokenizationError, TokenizersBusyError
from tokenization.model import Model, load_model, signature_of
from tokenization.requests import (
    Tokenized,
    tokenize_chat,
    tokenize_completion,
    tokenize_messages,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenization.files import ModelFiles

_T = TypeVar("_T")

_CHECK_SECONDS = 1.0  # by when a change of a model's files is noticed
_NEWEST = 0.1  # weight of the newest duration in their mean

_log = structlog.get_logger("kvatlas.tokenization")

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the threads here are parallel enough


@dataclass(frozen=True)
class TokenizationLimits:
    """threads: how many texts are encoded at a time. queue: how many more may wait.

    cache_bytes: for ids of segments of texts, of each model. models_bytes: for all models.
    """

    threads: int = 2
    queue: int = 64
    cache_bytes: int = 64 * 1024**2
    models_bytes: int = 4 * 1024**3


@dataclass
class TokenizationCounts:
    """Prompts tokenized, and the seconds it took threads; those that failed; those refused.

    mean_seconds: of the newest. evicted: models, for their memory.
    """

    done: int = 0
    seconds: float = 0.0
    failed: int = 0
    refused: int = 0
    mean_seconds: float = 0.0
    evicted: int = 0


class Tokenizers:
    """The tokenizers of all models; each is loaded once, however many ask for it at a time.

    Encoding runs in threads and gives up Python's lock while it works. Loading a file does not (a
    matter of half a second for a large vocabulary): `load` the configured ones before serving. What
    has changed on disk is loaded again; the longest unused are dropped beyond the limit.

    files: where models lie. options: model -> how its engine reads chats. under_way: prompts being
    tokenized or waiting for it. counts: what became of the others.
    """

    def __init__(
        self,
        files: ModelFiles,
        options: Mapping[str, ChatOptions] | None = None,
        limits: TokenizationLimits | None = None,
    ) -> None:
        self._files = files
        self._options = options or {}
        self._limits = limits or TokenizationLimits()
        self.under_way = 0
        self.counts = TokenizationCounts()
        self._loading: dict[str, asyncio.Task[Model]] = {}  # the longest unused first
        self._check_at: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self._limits.threads, thread_name_prefix="tokenize")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    # Prompts; all raise TokenizationError. patience: seconds after which nobody waits any more

    async def encode(
        self, model: str, text: str, *, add_special_tokens: bool, patience: float | None = None
    ) -> Tokenized:
        """A text as it is."""

        def work(loaded: Model) -> Tokenized:
            return Tokenized(loaded.encode(text, add_special_tokens=add_special_tokens), text)

        return await self._run(model, work, patience)

    async def offsets(
        self, model: str, text: str, *, add_special_tokens: bool
    ) -> tuple[list[int], list[int]]:
        """The ids of a text, and of each where in it it begins and ends: see `Model.offsets`."""

        def work(loaded: Model) -> tuple[list[int], list[int]]:
            return loaded.offsets(text, add_special_tokens=add_special_tokens)

        return await self._run(model, work, None)

    async def chat(
        self, model: str, request: Mapping[str, Any], patience: float | None = None
    ) -> Tokenized:
        """The body of a chat-completions request."""
        options = self._options.get(model, ChatOptions())
        return await self._run(
            model, lambda loaded: tokenize_chat(loaded, request, options), patience
        )

    async def messages(
        self, model: str, request: Mapping[str, Any], patience: float | None = None
    ) -> Tokenized:
        """The body of a request to /v1/messages."""
        options = self._options.get(model, ChatOptions())
        return await self._run(
            model, lambda loaded: tokenize_messages(loaded, request, options), patience
        )

    async def completion(
        self, model: str, request: Mapping[str, Any], patience: float | None = None
    ) -> Tokenized:
        """The body of a completions request."""
        options = self._options.get(model, ChatOptions())
        return await self._run(
            model, lambda loaded: tokenize_completion(loaded, request, options), patience
        )

    async def _run(self, model: str, work: Callable[[Model], _T], patience: float | None) -> _T:
        self._refuse_what_would_wait_too_long(patience)
        counts = self.counts
        self.under_way += 1
        try:
            loaded = await self._model(model)
            loop = asyncio.get_running_loop()
            done, seconds = await loop.run_in_executor(self._pool, _timed, work, loaded)
        except TokenizationError:
            counts.failed += 1
            raise
        finally:
            self.under_way -= 1
        counts.done += 1
        counts.seconds += seconds
        counts.mean_seconds += _NEWEST * (seconds - counts.mean_seconds)
        return done

    def _refuse_what_would_wait_too_long(self, patience: float | None) -> None:
        threads, counts = self._limits.threads, self.counts
        wait = counts.mean_seconds * max(0, self.under_way + 1 - threads) / threads
        is_late = patience is not None and wait > patience
        if is_late or self.under_way >= threads + self._limits.queue:
            counts.refused += 1
            raise TokenizersBusyError(self.under_way, wait)

    # Models

    async def load(self, model: str) -> None:
        """Load the model's files now. Raises TokenizationError."""
        await self._model(model)

    def models(self) -> list[Model]:
        """Those that are loaded, the longest unused first."""
        return [loaded for task in self._loading.values() if (loaded := _loaded(task)) is not None]

    async def _model(self, model: str) -> Model:
        task = self._loading.pop(model, None)
        if task is not None and self._has_changed(model, task):
            _log.info("tokenizer_changed", model=model)
            task = None
        if task is None:
            task = asyncio.create_task(self._load(model), name=f"load tokenizer {model}")
            task.add_done_callback(lambda done: self._loaded(model, done))
        self._loading[model] = task
        return await asyncio.shield(task)

    def _has_changed(self, model: str, task: asyncio.Task[Model]) -> bool:
        loaded, now = _loaded(task), time.monotonic()
        if loaded is None or now < self._check_at.get(model, 0.0):
            return False
        self._check_at[model] = now + _CHECK_SECONDS
        return signature_of(loaded.file) != loaded.signature

    def _loaded(self, model: str, task: asyncio.Task[Model]) -> None:
        if _loaded(task) is None:  # the next request tries again: the file may have come by then
            if self._loading.get(model) is task:
                del self._loading[model]
            return
        self._check_at[model] = time.monotonic() + _CHECK_SECONDS
        models = self.models()
        used = sum(each.bytes_used for each in models)
        for each in models[:-1]:
            if used <= self._limits.models_bytes:
                break
            if each.name != model:
                used -= each.bytes_used
                del self._loading[each.name]
                self.counts.evicted += 1
                _log.info("tokenizer_evicted", model=each.name)

    async def _load(self, model: str) -> Model:
        def load() -> Model:
            path = self._files.find(model)
            loaded = load_model(model, path, self._limits.cache_bytes)
            _log.info("tokenizer_loaded", model=model, path=str(path), by=loaded.encoder)
            return loaded

        return await asyncio.get_running_loop().run_in_executor(self._pool, load)


def _loaded(task: asyncio.Task[Model]) -> Model | None:
    if not task.done() or task.cancelled() or task.exception() is not None:
        return None
    return task.result()


def _timed(work: Callable[[Model], _T], model: Model) -> tuple[_T, float]:
    start = time.perf_counter()
    return work(model), time.perf_counter() - start
