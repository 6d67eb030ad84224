"""The tokenizers of all models: prompts -> token ids, in threads beside the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, assert_never

import structlog

from tokenization.chat import Caller, ChatOptions, RenderLimits, RenderWatch
from tokenization.description import PromptDescription, describe
from tokenization.errors import TokenizationError
from tokenization.model import Model, load_model, signature_of
from tokenization.processes import ProcessLimits, RenderProcesses
from tokenization.prompt import (
    AnthropicMessages,
    ChatCompletion,
    Completion,
    Text,
    TokenIds,
    Tokenized,
)
from tokenization.queue import QueueLimits, TextQueue
from tokenization.requests import (
    ForeignChat,
    tokenize_chat,
    tokenize_completion,
    tokenize_messages,
    tokenize_rendered,
    tokenize_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenization.files import ModelFiles
    from tokenization.prompt import Prompt

_T = TypeVar("_T")

_MOST_ORIGINS = 1024
_CHECK_SECONDS = 1.0  # between two looks for changes of a model's files
_SWITCH_SECONDS = 0.0005  # how long a thread may keep the GIL while others want it
_DEFAULT_OPTIONS = ChatOptions()

_log = structlog.get_logger("kvatlas.tokenization")


@dataclass(frozen=True)
class TokenizationLimits:
    """How much is tokenized at a time, and in how much memory."""

    queue: QueueLimits = field(default_factory=QueueLimits)
    render: RenderLimits = field(default_factory=RenderLimits)
    process_bytes: int = 256 * 1024**2
    """Memory of a process that renders a request's own template."""
    cache_bytes: int = 64 * 1024**2
    """Size of each model's segment cache."""
    models_bytes: int = 4 * 1024**3
    """Size of all loaded models together."""


@dataclass
class TokenizationCounts:
    """Counts of prompts and models since the start."""

    done: int = 0
    failed: int = 0
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

    Attributes:
        queue: the texts that wait for a thread.
        processes: those that render templates of requests.
        counts: since the start.
    """

    def __init__(
        self,
        files: ModelFiles,
        options: Mapping[str, ChatOptions] | None = None,
        limits: TokenizationLimits | None = None,
    ) -> None:
        self._files = files
        self._options = options or {}
        self._limits = limits = limits or TokenizationLimits()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load tokenizers")
        self._models: dict[str, asyncio.Task[Model]] = {}  # the least recently used first
        self._check_at: dict[str, float] = {}
        self.queue = TextQueue(limits.queue)
        self.processes = RenderProcesses(
            ProcessLimits(limits.queue.threads, limits.queue.waiting, limits.process_bytes),
            limits.render,
        )
        self.counts = TokenizationCounts()

    async def __aenter__(self) -> Self:
        # The pool's threads are parallel enough: the library must not start threads of its own. Its
        # only switch is this variable, which it reads whenever it encodes.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        # Rendering is Python: the event loop, which wants the GIL back for every call it answers,
        # would wait five milliseconds each time.
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.processes.close()
        self.queue.close()
        self._loader.shutdown(wait=True, cancel_futures=True)

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
        if isinstance(prompt, TokenIds):
            return Tokenized(prompt.ids)
        options = self._options.get(model, _DEFAULT_OPTIONS)
        caller = Caller(None if timeout is None else time.monotonic() + timeout)
        work = partial(_tokenize, prompt=prompt, options=options)
        try:
            size = len(prompt.text) if isinstance(prompt, Text) else prompt.size
            found = await self._run(model, size, work, caller)
            if isinstance(found, ForeignChat):
                found = await self._tokenize_foreign(model, found.request, options, caller)
        except TokenizationError:
            self.counts.failed += 1
            raise
        self.counts.done += 1
        return found._replace(queue_seconds=caller.queue_seconds, work_seconds=caller.work_seconds)

    async def _tokenize_foreign(
        self, name: str, request: Mapping[str, Any], options: ChatOptions, caller: Caller
    ) -> Tokenized:
        templates = (await self._model(name)).templates
        text = await self.processes.render(request, templates, options, caller)

        def work(model: Model, _: RenderWatch) -> Tokenized:
            return tokenize_rendered(model, request, options, text)

        return await self._run(name, len(text), work, caller)

    async def describe(self, model: str, prompt: Prompt, tokenized: Tokenized) -> PromptDescription:
        """Return how a prompt became what `tokenize` returned. Raises TokenizationError."""
        if isinstance(prompt, TokenIds):
            return PromptDescription()
        loaded, options = await self._model(model), self._options.get(model, _DEFAULT_OPTIONS)
        return describe(loaded, prompt, tokenized, options)

    async def offsets(
        self, model: str, text: Text, timeout: float | None = None
    ) -> tuple[list[int], list[int]]:
        """Return the token ids of a text and where each token begins and ends.

        See `Model.offsets`. Raises TokenizationError.
        """

        def work(loaded: Model, _: RenderWatch) -> tuple[list[int], list[int]]:
            return loaded.offsets(text.text, add_special_tokens=text.add_special_tokens)

        caller = Caller(None if timeout is None else time.monotonic() + timeout)
        try:
            found = await self._run(model, len(text.text), work, caller)
        except TokenizationError:
            self.counts.failed += 1
            raise
        self.counts.done += 1
        return found

    async def _run(
        self, name: str, size: int, work: Callable[[Model, RenderWatch], _T], caller: Caller
    ) -> _T:
        with self.queue.place(size, caller) as place:
            model, limits = await self._model(name), self._limits.render
            return await self.queue.run(place, lambda: work(model, RenderWatch(limits, caller)))

    # Models

    async def load(self, model: str) -> None:
        """Load the model's files now. Raises TokenizationError."""
        await self._model(model)

    def note_origin(self, model: str, origin: str) -> None:
        """An engine says where it has a model from: a name on the hub, or a path.

        That is where its files are looked for, too, unless they are found under its own name.
        """
        origins = self._files.origins
        if origin and (model in origins or len(origins) < _MOST_ORIGINS):
            origins[model] = origin

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

        return await asyncio.get_running_loop().run_in_executor(self._loader, load)


def _result(task: asyncio.Task[Model]) -> Model | None:
    """Return the model that a task has loaded; None if it is not done, or failed."""
    if not task.done() or task.cancelled() or task.exception() is not None:
        return None
    return task.result()


def _tokenize(
    model: Model,
    watch: RenderWatch,
    prompt: Text | ChatCompletion | AnthropicMessages | Completion,
    options: ChatOptions,
) -> Tokenized | ForeignChat:
    match prompt:
        case Text(text, add_special_tokens):
            return tokenize_text(model, text, add_special_tokens=add_special_tokens)
        case ChatCompletion(body):
            return tokenize_chat(model, body, options, watch)
        case AnthropicMessages(body):
            return tokenize_messages(model, body, options, watch)
        case Completion(body):
            return tokenize_completion(model, body, options)
        case _:
            assert_never(prompt)
