"""The tokenizers of all models: prompts -> token ids, in threads beside the event loop."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar, assert_never

import structlog

from tokenization.chat import ChatOptions
from tokenization.errors import TokenizationError, TokenizersBusyError
from tokenization.model import Model, load_model, signature_of
from tokenization.prompt import (
    AnthropicMessages,
    ChatCompletion,
    Completion,
    Text,
    TokenIds,
    Tokenized,
)
from tokenization.requests import (
    tokenize_chat,
    tokenize_completion,
    tokenize_messages,
    tokenize_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenization.files import ModelFiles
    from tokenization.prompt import Prompt

_T = TypeVar("_T")

_CHECK_SECONDS = 1.0  # between two looks for changes of a model's files
_NEWEST_WEIGHT = 0.1  # of the newest duration in the moving mean
_DEFAULT_OPTIONS = ChatOptions()

_log = structlog.get_logger("kvatlas.tokenization")


@dataclass(frozen=True)
class TokenizationLimits:
    """How much is tokenized at a time, and in how much memory."""

    threads: int = 2
    queue: int = 64
    """Prompts that may wait for a thread."""
    cache_bytes: int = 64 * 1024**2
    """Size of each model's segment cache."""
    models_bytes: int = 4 * 1024**3
    """Size of all loaded models together."""


@dataclass
class TokenizationCounts:
    """Counts of prompts and models since the start."""

    done: int = 0
    seconds: float = 0.0
    """Time that threads spent on the prompts that are done."""
    failed: int = 0
    refused: int = 0
    """Prompts that would have waited too long."""
    mean_seconds: float = 0.0
    """Moving mean of the seconds a prompt takes a thread."""
    evicted: int = 0
    """Models dropped to free memory."""


class Tokenizers:
    """Tokenizes prompts within an `async with` block; loads each model once.

    Encoding runs in threads and releases the GIL. Loading a model holds it, for about half a second
    if the vocabulary is large: `load` the configured models before serving. A model whose files
    change is loaded again; the least recently used models are dropped beyond the memory limit.

    Args:
        files: where models lie.
        options: model -> how its engine reads chats.
        limits: sizes of the thread pool, its queue and the caches.
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
        self._pool = ThreadPoolExecutor(self._limits.threads, thread_name_prefix="tokenize")
        self._models: dict[str, asyncio.Task[Model]] = {}  # the least recently used first
        self._check_at: dict[str, float] = {}
        self.under_way = 0
        """Prompts that a thread works on, or that wait for one."""
        self.counts = TokenizationCounts()

    async def __aenter__(self) -> Self:
        # The pool's threads are parallel enough: the library must not start threads of its own. Its
        # only switch is this variable, which it reads whenever it encodes.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def tokenize(self, model: str, prompt: Prompt, timeout: float | None = None) -> Tokenized:
        """Tokenize a prompt as the model's server would.

        Args:
            model: its name. Nothing of it is looked at, or loaded, for token ids.
            prompt: in any form.
            timeout: seconds that the caller has. A prompt that is likely to wait longer for a
                thread is refused at once.

        Raises:
            TokenizationError: the prompt, the model's files or the queue do not allow it.
        """
        work: Callable[[Model], Tokenized]
        options = self._options.get(model, _DEFAULT_OPTIONS)
        match prompt:
            case TokenIds():
                return Tokenized(prompt.ids)
            case Text(text, add_special_tokens):
                work = partial(tokenize_text, text=text, add_special_tokens=add_special_tokens)
            case ChatCompletion(body):
                work = partial(tokenize_chat, request=body, options=options)
            case AnthropicMessages(body):
                work = partial(tokenize_messages, request=body, options=options)
            case Completion(body):
                work = partial(tokenize_completion, request=body, options=options)
            case _:
                assert_never(prompt)
        return await self._run(model, work, timeout)

    async def offsets(self, model: str, text: Text) -> tuple[list[int], list[int]]:
        """Return the token ids of a text and where each token begins and ends.

        See `Model.offsets`. Raises TokenizationError.
        """
        work = partial(Model.offsets, text=text.text, add_special_tokens=text.add_special_tokens)
        return await self._run(model, work, None)

    async def _run(self, model: str, work: Callable[[Model], _T], timeout: float | None) -> _T:
        self._refuse_long_waits(timeout)
        counts = self.counts
        self.under_way += 1
        try:
            loaded = await self._model(model)
            loop = asyncio.get_running_loop()
            result, seconds = await loop.run_in_executor(self._pool, _timed, work, loaded)
        except TokenizationError:
            counts.failed += 1
            raise
        finally:
            self.under_way -= 1
        counts.done += 1
        counts.seconds += seconds
        counts.mean_seconds += _NEWEST_WEIGHT * (seconds - counts.mean_seconds)
        return result

    def _refuse_long_waits(self, timeout: float | None) -> None:
        """Raise TokenizersBusyError if the queue is full or too long for the timeout."""
        threads, counts = self._limits.threads, self.counts
        wait = counts.mean_seconds * max(0, self.under_way + 1 - threads) / threads
        is_late = timeout is not None and wait > timeout
        if is_late or self.under_way >= threads + self._limits.queue:
            counts.refused += 1
            raise TokenizersBusyError(self.under_way, wait)

    # Models

    async def load(self, model: str) -> None:
        """Load the model's files now. Raises TokenizationError."""
        await self._model(model)

    def models(self) -> list[Model]:
        """Return the loaded models, the least recently used first."""
        return [model for task in self._models.values() if (model := _result(task)) is not None]

    async def _model(self, name: str) -> Model:
        """Return the model, and load it once if it is not, however many callers wait for it."""
        task = self._models.pop(name, None)
        if task is not None and self._has_changed(name, task):
            _log.info("tokenizer_changed", model=name)
            task = None
        if task is None:
            task = asyncio.create_task(self._load(name), name=f"load tokenizer {name}")
            task.add_done_callback(lambda done: self._on_loaded(name, done))
        self._models[name] = task
        # A caller that is cancelled does not take the model from the others.
        return await asyncio.shield(task)

    def _has_changed(self, name: str, task: asyncio.Task[Model]) -> bool:
        model, now = _result(task), time.monotonic()
        if model is None or now < self._check_at.get(name, 0.0):
            return False
        self._check_at[name] = now + _CHECK_SECONDS
        return signature_of(model.file) != model.signature

    def _on_loaded(self, name: str, task: asyncio.Task[Model]) -> None:
        if _result(task) is None:  # the next request tries again: the file may exist by then
            if self._models.get(name) is task:
                del self._models[name]
            return
        self._check_at[name] = time.monotonic() + _CHECK_SECONDS
        self._evict(keep=name)

    def _evict(self, keep: str) -> None:
        """Drop the least recently used models until the rest fit, but never the model `keep`."""
        models = self.models()
        used = sum(model.bytes_used for model in models)
        for model in models[:-1]:
            if used <= self._limits.models_bytes:
                break
            if model.name != keep:
                used -= model.bytes_used
                del self._models[model.name]
                self.counts.evicted += 1
                _log.info("tokenizer_evicted", model=model.name)

    async def _load(self, name: str) -> Model:
        def load() -> Model:
            path = self._files.find(name)
            model = load_model(name, path, self._limits.cache_bytes)
            _log.info("tokenizer_loaded", model=name, path=str(path), by=model.encoder)
            return model

        return await asyncio.get_running_loop().run_in_executor(self._pool, load)


def _result(task: asyncio.Task[Model]) -> Model | None:
    """Return the model that a task has loaded; None if it is not done, or failed."""
    if not task.done() or task.cancelled() or task.exception() is not None:
        return None
    return task.result()


def _timed(work: Callable[[Model], _T], model: Model) -> tuple[_T, float]:
    """Return the result of `work`, and the seconds that it took."""
    start = time.perf_counter()
    return work(model), time.perf_counter() - start
