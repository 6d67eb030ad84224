"""A small tokenizer of a real shape, trained on the spot so that no hub is needed."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import (
    AddedToken,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXT = [
    "The map of blocks says which pod holds how much of a prompt.",
    "A request whose prefix is cached on a pod starts many times faster there.",
    "Gateways ask; the answer comes within a millisecond, or they go on without it.",
    "def score(prompt: str) -> dict[str, int]:\n    return {}\n",
    "Größe, naïveté, ☃ and 東京 are words as well.",
]


PIECES = (  # as Qwen's
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)


def write_tokenizer(directory: Path) -> Path:
    """Train a byte-level BPE tokenizer that begins every text with <s>; returns its file."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[AddedToken("<s>", special=True), AddedToken("</s>", special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.enable_truncation(max_length=8)  # as some files have it; must not count here
    path = directory / "tokenizer.json"
    tokenizer.save(str(path))
    return path
