"""Where tokenization provably starts afresh, so that a text's parts have the ids of the whole.

A tokenizer first splits a text at its added tokens, and nothing it does after that looks across
one. So a text may be cut before an added token, if that is found wherever it stands: if it neither
swallows what is around it nor can be swallowed. It may also be cut between a newline and an ASCII
letter, for pre-tokenizers known to end a piece there; cuts are then far apart, and those of a text
that grows remain where they were.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_APART = 512  # characters between cuts at newlines
_LINE = re.compile("\n(?=[A-Za-z])")
_MOST_TOKENS = 8  # to cut at: each costs time in every text

_WORDS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
_REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
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
_NORMALIZERS_AT_LINES = ("NFC", "NFD", "NFKC", "NFKD")


@dataclass(frozen=True)
class SplitPoints:
    """tokens: added tokens that texts are cut before. lines: whether they are cut at newlines."""

    tokens: tuple[str, ...] = ()
    lines: bool = False
    _pattern: re.Pattern[str] | None = field(default=None, repr=False)

    @classmethod
    def at(cls, tokens: Iterable[str], *, lines: bool) -> SplitPoints:
        """Cuts before each of `tokens`, and at newlines or not."""
        found = tuple(tokens)
        return cls(found, lines, re.compile("|".join(map(re.escape, found))) if found else None)

    def __bool__(self) -> bool:
        return bool(self.tokens) or self.lines

    def apart(self, text: str) -> list[str]:
        """The parts of a text, none of them empty."""
        starts = [] if self._pattern is None else [m.start() for m in self._pattern.finditer(text)]
        bounds = [0, *starts, len(text)]
        parts = [text[start:end] for start, end in pairwise(bounds) if start < end]
        return [line for part in parts for line in _at_lines(part)] if self.lines else parts


def _at_lines(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _APART and (found := _LINE.search(text, start + _APART)):
        yield text[start : found.end()]
        start = found.end()
    yield text[start:]


def find_split_points(
    config: str, wanted: str, ids: Callable[[str], list[int]], *, splits_special: bool
) -> SplitPoints:
    """Where texts may be cut for the tokenizer that `config` (its JSON) describes.

    wanted: text in which the tokens worth cutting at stand, such as chat templates. ids: of a text.
    splits_special: whether special tokens in texts are taken for plain text.
    """
    said = json.loads(config)
    model = said["model"]
    if said.get("truncation") or said.get("padding") or model.get("dropout"):
        return SplitPoints()
    added = said.get("added_tokens") or []
    normalizes = not _is_nothing(said.get("normalizer"))
    tokens = [
        token["content"]
        for token in added
        if token["content"] in wanted
        and not (token["special"] and splits_special)
        and not (token["normalized"] and normalizes)
        and _stands_alone(token, added)
        and ids(token["content"]) == [token["id"]]
    ]
    # Those that stand most often separate turns.
    tokens.sort(key=lambda token: (-wanted.count(token), token))
    return SplitPoints.at(tokens[:_MOST_TOKENS], lines=_ends_at_lines(said, added))


def _is_nothing(normalizer: Any) -> bool:
    return normalizer is None or (
        normalizer.get("type") == "Sequence" and all(map(_is_nothing, normalizer["normalizers"]))
    )


def _stands_alone(token: dict[str, Any], added: list[dict[str, Any]]) -> bool:
    """Whether it is a token wherever it stands in a text, and changes nothing around it."""
    text: str = token["content"]
    if not text or token["lstrip"] or token["single_word"] or text != text.strip():
        return False
    if any(other["single_word"] for other in added) and not _is_ascii_sign(text[0]):
        return False
    for other in (each["content"] for each in added):
        if other and ((text in other and text != other) or _overlaps(other, text)):
            return False
    if not token["normalized"]:
        return True
    first = [each["content"] for each in added if not each["normalized"] and each["content"]]
    return not any(
        other in text or any(other.startswith(text[at:]) for at in range(1, len(text)))
        for other in first
    )


def _is_ascii_sign(letter: str) -> bool:
    return letter.isascii() and not (letter.isalnum() or letter == "_")


def _overlaps(first: str, second: str) -> bool:
    """Whether an end of `first`, but not all of it, is a beginning of `second`, but not all."""
    return any(
        second.startswith(first[at:]) and len(first) - at < len(second)
        for at in range(max(1, len(first) - len(second)), len(first))
    )


def _ends_at_lines(said: dict[str, Any], added: list[dict[str, Any]]) -> bool:
    """Whether the pre-tokenizer ends a piece between a newline and an ASCII letter."""
    normalizer: Any = said.get("normalizer")
    if not _is_nothing(normalizer) and normalizer["type"] not in _NORMALIZERS_AT_LINES:
        return False
    if said["model"].get("type") != "BPE" or any(map(_minds_lines, added)):
        return False
    steps = (said.get("pre_tokenizer") or {}).get("pretokenizers") or [{}]
    *splits, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or last.get("use_regex"):
        return False
    if any(
        split.get("type") != "Split" or split.get("behavior") != "Isolated" or split.get("invert")
        for split in splits
    ):
        return False
    return [split["pattern"].get("Regex") for split in splits] in _SPLITS_AT_LINES


def _minds_lines(token: dict[str, Any]) -> bool:
    text: str = token["content"]
    strips = token["lstrip"] and text[:1].isalpha()
    return bool(token["single_word"] or strips or _LINE.search(text))
