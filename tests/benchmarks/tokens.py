"""Tokenizing chats of twenty turns, the last one new: by both libraries, and from the cache."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
from benchmarks.rows import row
from support.models.fetched import model_files

from tokenization.chat.chat_completion import ChatOptions, render_chat
from tokenization.encode.encoders import HuggingFace
from tokenization.encode.segment_cache import SegmentCache
from tokenization.model import load_model

CHATS = 16
TURNS = 20
ROUNDS = 5
SYLLABLES = ["pre", "fix", "cach", "ing", "tok", "en", "mod", "el", "ser", "ver", "s", "Qu", "ick"]


def token_rows() -> None:
    """Of every real tokenizer there is."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as `Tokenizers` does
    for name in ("qwen3", "deepseek_v3"):
        try:
            files = model_files(name)
        except pytest.skip.Exception as error:
            print(f"tokenization: {error}")
            return
        _rows(name, files)


def _rows(name: str, files: Any) -> None:
    model = load_model(name, files / "tokenizer.json", 2**28)
    chats = [_chat(random.Random(seed)) for seed in range(CHATS)]
    shorter = [render_chat(_upto(chat, -1), model.templates, ChatOptions()) for chat in chats]
    texts = [render_chat(chat, model.templates, ChatOptions()) for chat in chats]
    reference = tokenizers.Tokenizer.from_file(str(files / "tokenizer.json"))
    thorough = HuggingFace(reference)
    cuts = model.segments.split_points
    encoder = model.segments._encoder
    count = statistics.mean(len(thorough.ids_of([text])[0]) for text in texts)

    def warm(by: Any) -> list[SegmentCache]:
        """A cache for each text, that knows all turns but the last."""
        found = [SegmentCache(by, cuts, 2**26) for _ in texts]
        for segments, text in zip(found, shorter, strict=True):
            segments.ids(text)
        return found

    whole = _median(lambda: [thorough.ids_of([text]) for text in texts])
    fast = _median(lambda: [encoder.ids_of([text]) for text in texts])
    cached = _median_of_warm(lambda: warm(thorough), texts)
    both = _median_of_warm(lambda: warm(encoder), texts)
    rendered = _median(lambda: [render_chat(c, model.templates, ChatOptions()) for c in chats])
    against = f"tokenizers, whole chat of {count:.0f} tokens {whole * 1e3:.2f} ms"
    for what, taken, target in (
        ("tokenizers, segment cache", cached, "<= 1/15"),
        (f"{encoder.name}, whole chat", fast, ""),
        (f"{encoder.name}, segment cache (in use)", both, ""),
        ("rendering the template", rendered, ""),
    ):
        row(f"{name}: {what}", f"{taken * 1e3:.3f} ms", against, taken / whole, target)
    megabytes = sum(len(text.encode()) for text in texts) / len(texts) / 1e6
    row(
        f"{name}: plain MB/s by {encoder.name}",
        f"{megabytes / fast:.1f}",
        f"tokenizers {megabytes / whole:.1f}",
        whole / fast,
        "",
    )


def _chat(source: random.Random) -> dict[str, Any]:
    messages = []
    for turn in range(TURNS):
        role = "assistant" if turn % 2 else "user"
        words = ["".join(source.choices(SYLLABLES, k=source.randrange(1, 4))) for _ in range(200)]
        messages.append({"role": role, "content": " ".join(words)})
    return {"messages": messages}


def _upto(chat: dict[str, Any], end: int) -> dict[str, Any]:
    return {"messages": chat["messages"][:end]}


def _median(work: Callable[[], object]) -> float:
    """Seconds for each text."""
    work()
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        taken.append((time.perf_counter() - start) / CHATS)
    return statistics.median(taken)


def _median_of_warm(warm: Callable[[], list[SegmentCache]], texts: list[str]) -> float:
    taken = []
    for _ in range(ROUNDS):
        caches = warm()
        start = time.perf_counter()
        for segments, text in zip(caches, texts, strict=True):
            segments.ids(text)
        taken.append((time.perf_counter() - start) / CHATS)
    return statistics.median(taken)
