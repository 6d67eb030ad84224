"""Text -> token ids, off the event loop, one tokenizer per model."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import structlog
import tokenizers

from tokenization.errors import TokenizerBrokenError
from tokenization.files import tokenizer_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_log = structlog.get_logger("kvatlas.tokenization")

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the threads here are parallel enough


class Tokenizers:
    """The tokenizers of all models; each is loaded once, however many ask for it at a time.

    Encoding runs in threads and gives up Python's lock while it works. Loading a file does not (a
    matter of half a second for a large vocabulary): `load` the configured ones before serving.

    configured: model -> its tokenizer.json or a directory with one. hub_cache: see
    `tokenizer_file`. threads: how many texts are encoded at a time.
    """

    def __init__(
        self, configured: Mapping[str, Path], hub_cache: Path | None = None, threads: int = 2
    ) -> None:
        self._configured = configured
        self._hub_cache = hub_cache
        self._threads = threads
        self._loading: dict[str, asyncio.Task[tokenizers.Tokenizer]] = {}

    async def __aenter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tokenize")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def load(self, model: str) -> None:
        """Load the model's tokenizer now. Raises TokenizationError."""
        await self._tokenizer(model)

    async def encode(self, model: str, text: str, add_special_tokens: bool = True) -> list[int]:
        """The token ids of `text`. Raises TokenizationError."""
        tokenizer = await self._tokenizer(model)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._pool, _encode, model, tokenizer, text, add_special_tokens
        )

    async def _tokenizer(self, model: str) -> tokenizers.Tokenizer:
        task = self._loading.get(model)
        if task is None:
            task = asyncio.create_task(self._load(model), name=f"load tokenizer {model}")
            self._loading[model] = task
            task.add_done_callback(lambda done: self._keep_unless_failed(model, done))
        return await asyncio.shield(task)

    def _keep_unless_failed(self, model: str, task: asyncio.Task[tokenizers.Tokenizer]) -> None:
        """The next request tries again what has failed: the file may have come by then."""
        if task.cancelled() or task.exception() is not None:
            self._loading.pop(model, None)

    async def _load(self, model: str) -> tokenizers.Tokenizer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._pool, _load, model, self._configured, self._hub_cache
        )


def _load(
    model: str, configured: Mapping[str, Path], hub_cache: Path | None
) -> tokenizers.Tokenizer:
    path = tokenizer_file(model, configured, hub_cache)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except BaseException as error:  # a panic of the library is not an Exception
        raise TokenizerBrokenError(model, f"{path}: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _log.info("tokenizer_loaded", model=model, path=str(path))
    return tokenizer


def _encode(
    model: str, tokenizer: tokenizers.Tokenizer, text: str, add_special_tokens: bool
) -> list[int]:
    try:
        # In a batch of one, because `encode` keeps Python's lock and this does not.
        encoded = tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    except BaseException as error:  # a panic of the library is not an Exception
        raise TokenizerBrokenError(model, str(error)) from error
    return encoded[0].ids
