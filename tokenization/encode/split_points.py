"""Where a text may be split so that the ids of its segments are provably the ids of the whole.

A tokenizer first splits a text at its added tokens, and no later step looks across one. So an added
token is a split point if the tokenizer finds it wherever it is in a text: if it takes no characters
from its neighbours, and no other token can take characters from it.

The place between a newline and an ASCII letter is another, for pre-tokenizers that are known to end
a piece there. These split points are kept far apart. They depend on the text before them only, so
that a text that grows keeps its segments.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LINES_CHARACTERS = 512  # the least between split points at newlines
_LINE = re.compile("\n(?=[A-Za-z])")
_MAX_TOKENS = 8  # to split at, as each costs time in every text

_WORDS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
_REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
# Pre-tokenizers that end a piece there, as the patterns of their steps.
_SPLITS_AT_LINES = (
    [_WORDS + "\\p{N}" + _REST],  # Qwen
    [_WORDS + "\\p{N}{1,3}" + _REST],  # Llama 3
    [  # DeepSeek
        "\\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        (
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
            "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
        ),
    ],
)
_NORMALIZERS_AT_LINES = ("NFC", "NFD", "NFKC", "NFKD")  # none joins a letter with a newline


@dataclass(frozen=True)
class SplitPoints:
    """The split points of a tokenizer's texts."""

    tokens: tuple[str, ...] = ()
    """Added tokens; texts are split before them."""
    lines: bool = False
    """Whether texts are also split at newlines."""
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pattern = re.compile("|".join(map(re.escape, self.tokens))) if self.tokens else None
        object.__setattr__(self, "_pattern", pattern)

    def __bool__(self) -> bool:
        return bool(self.tokens) or self.lines

    def split(self, text: str) -> list[str]:
        """Return the segments of a text, none of them empty."""
        starts = [] if self._pattern is None else [m.start() for m in self._pattern.finditer(text)]
        bounds = [0, *starts, len(text)]
        parts = [text[start:end] for start, end in pairwise(bounds) if start < end]
        return [lines for part in parts for lines in _at_lines(part)] if self.lines else parts


def _at_lines(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _LINES_CHARACTERS:
        newline = _LINE.search(text, start + _LINES_CHARACTERS)
        if newline is None:
            break
        yield text[start : newline.end()]
        start = newline.end()
    yield text[start:]


def find_split_points(
    config: str, wanted: str, ids: Callable[[str], list[int]], *, splits_special: bool
) -> SplitPoints:
    """Return the split points of a tokenizer's texts; none if it may change a text as a whole.

    Args:
        config: the tokenizer's description in JSON.
        wanted: text that contains the tokens worth splitting at, such as the chat templates.
        ids: text -> its token ids.
        splits_special: whether the tokenizer takes special tokens in a text for plain text.
    """
    described = json.loads(config)
    model = described["model"]
    if described.get("truncation") or described.get("padding") or model.get("dropout"):
        return SplitPoints()
    added = described.get("added_tokens") or []
    normalizes = not _is_nothing(described.get("normalizer"))
    tokens = [
        token["content"]
        for token in added
        if token["content"] in wanted
        and not (token["special"] and splits_special)
        and not (token["normalized"] and normalizes)
        and _stands_alone(token, added)
        and ids(token["content"]) == [token["id"]]
    ]
    # The most frequent tokens separate the turns of a chat.
    tokens.sort(key=lambda token: (-wanted.count(token), token))
    return SplitPoints(tuple(tokens[:_MAX_TOKENS]), _ends_at_lines(described, added))


def _is_nothing(normalizer: Any) -> bool:
    """Whether a normalizer changes no text."""
    return normalizer is None or (
        normalizer.get("type") == "Sequence" and all(map(_is_nothing, normalizer["normalizers"]))
    )


def _stands_alone(token: dict[str, Any], added: list[dict[str, Any]]) -> bool:
    """Whether an added token is found wherever it is in a text, and leaves its neighbours alone."""
    text: str = token["content"]
    if not text or token["lstrip"] or token["single_word"] or text != text.strip():
        return False
    # A split must not turn a token before it into a single word: no letter may follow the split.
    if any(other["single_word"] for other in added) and not _is_ascii_sign(text[0]):
        return False
    for other in (entry["content"] for entry in added):
        if other and ((text in other and text != other) or _overlaps(other, text)):
            return False
    if not token["normalized"]:
        return True
    # Tokens that are not normalized are looked for first, and may take characters of this one.
    earlier = [entry["content"] for entry in added if not entry["normalized"] and entry["content"]]
    return not any(
        other in text or any(other.startswith(text[start:]) for start in range(1, len(text)))
        for other in earlier
    )


def _is_ascii_sign(letter: str) -> bool:
    return letter.isascii() and not (letter.isalnum() or letter == "_")


def _overlaps(first: str, second: str) -> bool:
    """Whether a proper suffix of `first` is a proper prefix of `second`."""
    return any(
        second.startswith(first[start:]) and len(first) - start < len(second)
        for start in range(max(1, len(first) - len(second)), len(first))
    )


def _ends_at_lines(described: dict[str, Any], added: list[dict[str, Any]]) -> bool:
    """Whether the pre-tokenizer ends a piece between a newline and an ASCII letter."""
    normalizer: Any = described.get("normalizer")
    if not _is_nothing(normalizer) and normalizer["type"] not in _NORMALIZERS_AT_LINES:
        return False
    if described["model"].get("type") != "BPE" or any(map(_reaches_across_lines, added)):
        return False
    steps = (described.get("pre_tokenizer") or {}).get("pretokenizers") or [{}]
    *splits, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or last.get("use_regex"):
        return False
    if any(
        split.get("type") != "Split" or split.get("behavior") != "Isolated" or split.get("invert")
        for split in splits
    ):
        return False
    return [split["pattern"].get("Regex") for split in splits] in _SPLITS_AT_LINES


def _reaches_across_lines(token: dict[str, Any]) -> bool:
    """Whether an added token may contain a split point at a newline, or depend on one."""
    text: str = token["content"]
    strips = token["lstrip"] and text[:1].isalpha()
    return bool(token["single_word"] or strips or _LINE.search(text))
