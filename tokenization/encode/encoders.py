"""Texts -> ids, by the library that does it fastest and has shown that it does it right."""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tokenizers

Ids = array  # typecode 'I'

_log = structlog.get_logger("kvatlas.tokenization")

_TEXTS = (
    "",
    " ",
    "Once upon a time",
    "  two  spaces   three    four     and a tail  ",
    "tabs\tand\r\nlines\n\n\nand \n spaces\n  before",
    "def score(prompt: str) -> dict[str, int]:\n    return {'a': 1_000, \"b\": 0x1F}\n",
    "I'll they've we'd it's DON'T 'tis",
    "1 12 123 1234 12345 3.14159 -42 1,000,000 ²³ ½ Ⅷ",
    "naïve Größe İstanbul ſtraße ẛ̣ e\u0301 o\u0308\u0304 \u0338>",
    "東京に行きました。注意：価格は１２３円です。 한국어 텍스트 中文分词",
    "Привет мир مرحبا بالعالم नमस्ते दुनिया สวัสดี",
    "👩‍💻👨‍👩‍👧‍👦❤️👍🏽🇩🇪 ☃ ∑∞≠ ♠",
    "\u00a0\u2003\u3000\u200b\u2028\u2029\ufeff\ue000\x00\x1b\x7f",
    "<|im_start|>user<|im_end|> <|endoftext|> <s></s>[INST] <bos> <｜User｜> <|eot_id|>",
    "<|im_start <|im_start||> im_end|> <｜User",
    "a" * 300,
    " " * 300,
    "=-" * 150 + "\n" * 40,
)


class Encoder(Protocol):
    """Encodes without adding special tokens, and gives up Python's lock meanwhile."""

    name: str

    def ids_of(self, texts: Sequence[str]) -> list[Ids[int]]:
        """The ids of each text."""
        ...


class HuggingFace:
    """The `tokenizers` library, which loads everything."""

    name = "tokenizers"

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer

    def ids_of(self, texts: Sequence[str]) -> list[Ids[int]]:
        """See `Encoder`."""
        # Always as a batch: `encode` would keep Python's lock.
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [array("I", each.ids) for each in encoded]


class Fastokens:
    """The `fastokens` library, many times as fast, which does not load everything."""

    name = "fastokens"

    def __init__(self, config: str, *, splits_special: bool) -> None:
        import fastokens  # not on every platform

        self._tokenizer = fastokens.Tokenizer.from_json_str(config)
        self._splits_special = splits_special

    def ids_of(self, texts: Sequence[str]) -> list[Ids[int]]:
        """See `Encoder`."""
        ids, offsets = self._tokenizer.encode_batch_flat(
            list(texts), add_special_tokens=False, split_special_tokens=self._splits_special
        )
        ends = np.frombuffer(offsets, dtype="<u8").tolist()
        return [array("I", ids[4 * start : 4 * end]) for start, end in pairwise(ends)]


def select_encoder(
    model: str, tokenizer: tokenizers.Tokenizer, config: str, added: Sequence[str]
) -> Encoder:
    """The fast library if it loads `config` and agrees on everything asked, else the thorough one.

    config: the tokenizer's JSON. added: its added tokens, which are asked about too.
    """
    thorough = HuggingFace(tokenizer)
    try:
        fast = Fastokens(config, splits_special=tokenizer.encode_special_tokens)
        texts = [*_TEXTS, *(f"a{token}b {token}\n{token}" for token in added)]
        differ = fast.ids_of(texts) != thorough.ids_of(texts)
    except BaseException as error:  # a panic of the library is not an Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        _log.info("fastokens_not_used", model=model, detail=str(error))
        return thorough
    if differ:
        _log.warning("fastokens_not_used", model=model, detail="its ids differ in the self-check")
        return thorough
    return fast
