"""Texts in segments from a cache have the ids of the whole: real tokenizers, hostile texts."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from support.models.fetched import model_files
from support.models.trained import write_tokenizer

from tokenization.encode.encoders import HuggingFace
from tokenization.encode.segment_cache import SegmentCache
from tokenization.encode.split_points import SplitPoints, find_split_points
from tokenization.model import Model, load_model

PIECES = [
    *(" ", "  ", "\t", "\n", "\n\n", "\r\n", " \n", "\u00a0", "\u2028", "\u3000", "   \n  "),
    *(
        "a",
        "B",
        "ab",
        "word",
        " the",
        "I'll",
        "'s",
        "1",
        "123",
        "4567",
        "²",
        "Ⅷ",
        "_",
        "-",
        "/",
        "!?",
    ),
    *("e\u0301", "\u0338", "\u0304", "ẛ̣", "ſ", "İ", "é", "ß", "ﬁ", "\u200b", "\u200d", "\ufeff"),
    *("東京", "ひらがな", "カタカナ", "한국어", "Привет", "مرحبا", "नमस्ते", "ไทย"),
    *("👩\u200d💻", "👍🏽", "❤️", "🇩🇪", "\ue000", "\x00", "\x1b", "\x7f", "\U0010ffff"),
    *("def f(x):\n    return x\n", "http://a.b/c?d=e&f", "<|", "|>", "<", ">", "｜", "▁", "<0x0A>"),
]


def texts(source: random.Random, added: list[str], count: int) -> list[str]:
    """Anything at all: pieces, whole and partial special tokens, long runs, chats that grow."""
    found = []
    for _ in range(count):
        parts = source.choices(PIECES, k=source.randrange(40))
        for _ in range(source.randrange(6)):
            token = source.choice(added)
            cut = source.randrange(len(token)) if source.random() < 0.3 else 0
            parts.insert(source.randrange(len(parts) + 1), token[cut:] or token)
        if source.random() < 0.2:
            parts.append(source.choice(PIECES) * source.randrange(300, 1500))
        if source.random() < 0.3:
            parts += [f"\n{source.choice('abZ')}{'x y ' * 150}" for _ in range(3)]
            source.shuffle(parts)
        text = "".join(parts)
        found.append(text)
        if found and source.random() < 0.5:
            found.append(source.choice(found) + text)
    return found


def plain(files: Path) -> tokenizers.Tokenizer:
    found = tokenizers.Tokenizer.from_file(str(files / "tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    return found


def compare(name: str, count: int) -> Model:
    return compare_files(name, model_files(name), count)


def compare_files(name: str, files: Path, count: int) -> Model:
    reference = plain(files)
    model = load_model(name, files / "tokenizer.json", 2**26)
    cuts = model.segments.split_points
    thorough = HuggingFace(reference)
    every = {
        "default": model.segments,
        "evicting": SegmentCache(thorough, cuts, 20_000),
        "one token": SegmentCache(thorough, SplitPoints(cuts.tokens[:1]), 2**24),
        "lines": SegmentCache(thorough, SplitPoints(lines=cuts.lines), 2**24),
    }
    added = [token.content for token in reference.get_added_tokens_decoder().values()]
    for text in texts(random.Random(name), added, count):
        expected = reference.encode(text, add_special_tokens=False).ids
        for kind, segments in every.items():
            assert segments.ids(text).tolist() == expected, (name, kind, text)
        whole = reference.encode(text).ids
        assert model.encode(text, add_special_tokens=True).tolist() == whole
    assert every["evicting"].used <= 20_000
    return model


@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3"])
def test_the_fast_encoder_is_used_and_exact_in_segments(name: str) -> None:
    model = compare(name, 250)
    assert model.encoder == "fastokens"
    assert model.segments.split_points.tokens
    assert model.segments.split_points.lines
    assert model.segments.counts.found > 500
    assert model.segments.counts.encoded > 500


def test_a_tokenizer_without_line_splits_is_exact_in_segments() -> None:
    model = compare("llama2", 150)
    assert model.segments.split_points.tokens
    assert not model.segments.split_points.lines


def test_a_tokenizer_trained_here_is_exact_in_segments(tmp_path: Path) -> None:
    """Without any network."""
    files = write_tokenizer(tmp_path).parent
    model = compare_files("trained", files, 150)
    assert model.encoder == "fastokens"
    assert model.segments.split_points.lines


@pytest.mark.soak
@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3", "llama2"])
def test_many_texts_in_segments_have_the_ids_of_the_whole(name: str) -> None:
    compare(name, 8000)


# Tokenizers made up so that everything collides

LETTERS = "abcABC<>| \n_é"
NORMALIZERS: list[Any] = [
    None,
    {"type": "Sequence", "normalizers": []},
    {"type": "NFC"},
    {"type": "NFKD"},
    {"type": "Lowercase"},
    {"type": "Prepend", "prepend": "_"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "_"},
]
PRE_TOKENIZERS: list[Any] = [
    None,
    {"type": "Whitespace"},
    {"type": "WhitespaceSplit"},
    {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": True},
    {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": False},
    {"type": "Punctuation", "behavior": "MergedWithPrevious"},
    {"type": "Split", "pattern": {"String": "a"}, "behavior": "Isolated", "invert": False},
]


def made_up(source: random.Random) -> tuple[str, list[str]]:
    """A description of a tokenizer, and its added tokens."""
    vocabulary = {letter: at for at, letter in enumerate([*LETTERS, "?"])}
    merges: list[list[str]] = []
    for _ in range(source.randrange(12)):
        left, right = source.choice(list(vocabulary)), source.choice(list(vocabulary))
        if left + right not in vocabulary:
            vocabulary[left + right] = len(vocabulary)
            merges.append([left, right])
    added = {
        "".join(source.choices(LETTERS, k=source.randrange(1, 5))): None
        for _ in range(source.randrange(1, 6))
    }
    tokens = [
        {
            "id": vocabulary.get(content, len(vocabulary) + at),
            "content": content,
            **{flag: source.random() < 0.15 for flag in ("single_word", "lstrip", "rstrip")},
            "normalized": source.random() < 0.4,
            "special": source.random() < 0.5,
        }
        for at, content in enumerate(added)
        if content.strip()
    ]
    model = {
        "type": "BPE",
        "unk_token": "?",
        "fuse_unk": source.random() < 0.5,
        "byte_fallback": False,
        "ignore_merges": source.random() < 0.3,
        "vocab": vocabulary,
        "merges": merges,
    }
    described = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": source.choice(NORMALIZERS),
        "pre_tokenizer": source.choice(PRE_TOKENIZERS),
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    return json.dumps(described), [str(token["content"]) for token in tokens]


def ids_by(encoder: HuggingFace, text: str) -> list[int]:
    return encoder.ids_of([text])[0].tolist()


def fuzz(seed: int, count: int) -> int:
    """How many texts were cut, of `count` tokenizers."""
    source = random.Random(seed)
    cut = 0
    for _ in range(count):
        described, added = made_up(source)
        try:
            tokenizer = tokenizers.Tokenizer.from_str(described)
        except Exception:  # noqa: BLE001 - one that cannot be
            continue
        tokenizer = tokenizers.Tokenizer.from_str(tokenizer.to_str())
        encoder = HuggingFace(tokenizer)
        for splits in (False, True):
            tokenizer.encode_special_tokens = splits
            cuts = find_split_points(
                tokenizer.to_str(),
                " ".join(added),
                partial(ids_by, encoder),
                splits_special=splits,
            )
            segments = SegmentCache(encoder, cuts, 2000)
            for _ in range(20):
                words = source.choices([*LETTERS, *added, *added], k=source.randrange(12))
                text = "".join(words)
                (expected,) = encoder.ids_of([text])
                assert segments.ids(text) == expected, (described, splits, text)
                cut += len(cuts.split(text)) > 1
    return cut


def test_generated_tokenizers_are_split_only_where_the_ids_stay_the_same() -> None:
    assert fuzz(1, 400) > 1000


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 120))
def test_many_generated_tokenizers_are_split_only_where_the_ids_stay_the_same(seed: int) -> None:
    fuzz(seed, 5000)
