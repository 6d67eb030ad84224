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
from tokenization.files import tokenizer_file
from tokenization.model import Model, load_model
from tokenization.requests import Tokenized, tokenize_chat, tokenize_completion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_log = structlog.get_logger("kvatlas.tokenization")
_T = TypeVar("_T")

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the threads here are parallel enough


@dataclass
class TokenizationCounts:
    """Prompts tokenized, and the seconds it took threads; those that failed; those refused."""

    done: int = 0
    seconds: float = 0.0
    failed: int = 0
    refused: int = 0


class Tokenizers:
    """The tokenizers of all models; each is loaded once, however many ask for it at a time.

    Encoding runs in threads and gives up Python's lock while it works. Loading a file does not (a
    matter of half a second for a large vocabulary): `load` the configured ones before serving.

    configured: model -> its tokenizer.json or a directory with one. options: model -> how its
    engine reads chats. hub_cache: see `tokenizer_file`. threads: how many texts are encoded at a
    time. queue: how many more may wait. cache_bytes: for ids of segments of texts, of each model.
    under_way: prompts being tokenized or waiting for it. counts: what became of the others.
    """

    def __init__(
        self,
        configured: Mapping[str, Path],
        options: Mapping[str, ChatOptions],
        hub_cache: Path | None = None,
        threads: int = 2,
        queue: int = 64,
        cache_bytes: int = 64 * 1024**2,
    ) -> None:
        self._configured = configured
        self._options = options
        self._hub_cache = hub_cache
        self._threads = threads
        self._most = threads + queue
        self._cache_bytes = cache_bytes
        self.under_way = 0
        self.counts = TokenizationCounts()
        self._loading: dict[str, asyncio.Task[Model]] = {}

    async def __aenter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tokenize")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def load(self, model: str) -> None:
        """Load the model's files now. Raises TokenizationError."""
        await self._model(model)

    async def encode(self, model: str, text: str, *, add_special_tokens: bool) -> Tokenized:
        """A text as it is. Raises TokenizationError."""

        def work(loaded: Model) -> Tokenized:
            return Tokenized(loaded.encode(text, add_special_tokens=add_special_tokens), text)

        return await self._run(model, work)

    async def offsets(
        self, model: str, text: str, *, add_special_tokens: bool
    ) -> tuple[list[int], list[int]]:
        """The ids of a text, and of each where in it it begins and ends: see `Model.offsets`."""
        return await self._run(
            model, lambda loaded: loaded.offsets(text, add_special_tokens=add_special_tokens)
        )

    async def chat(self, model: str, request: Mapping[str, Any]) -> Tokenized:
        """The body of a chat-completions request. Raises TokenizationError."""
        options = self._options.get(model, ChatOptions())
        return await self._run(model, lambda loaded: tokenize_chat(loaded, request, options))

    async def completion(self, model: str, request: Mapping[str, Any]) -> Tokenized:
        """The body of a completions request. Raises TokenizationError."""
        options = self._options.get(model, ChatOptions())
        return await self._run(model, lambda loaded: tokenize_completion(loaded, request, options))

    async def _run(self, model: str, work: Callable[[Model], _T]) -> _T:
        counts = self.counts
        if self.under_way >= self._most:
            counts.refused += 1
            raise TokenizersBusyError(self.under_way)
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
        return done

    def models(self) -> list[Model]:
        """Those that are loaded."""
        loaded = [t for t in self._loading.values() if t.done() and not t.cancelled()]
        return [task.result() for task in loaded if task.exception() is None]

    async def _model(self, model: str) -> Model:
        task = self._loading.get(model)
        if task is None:
            task = asyncio.create_task(self._load(model), name=f"load tokenizer {model}")
            self._loading[model] = task
            task.add_done_callback(lambda done: self._keep_unless_failed(model, done))
        return await asyncio.shield(task)

    def _keep_unless_failed(self, model: str, task: asyncio.Task[Model]) -> None:
        """The next request tries again what has failed: the file may have come by then."""
        if task.cancelled() or task.exception() is not None:
            self._loading.pop(model, None)

    async def _load(self, model: str) -> Model:
        def load() -> Model:
            path = tokenizer_file(model, self._configured, self._hub_cache)
            loaded = load_model(model, path, self._cache_bytes)
            _log.info("tokenizer_loaded", model=model, path=str(path), by=loaded.encoder)
            return loaded

        return await asyncio.get_running_loop().run_in_executor(self._pool, load)


def _timed(work: Callable[[Model], _T], model: Model) -> tuple[_T, float]:
    start = time.perf_counter()
    return work(model), time.perf_counter() - start
