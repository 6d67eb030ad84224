"""Texts -> token ids, by the fastest library that passes a self-check on the model's tokenizer."""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import structlog
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tokenizers

Ids = array
"""Token ids: an array of typecode 'I'."""

_log = structlog.get_logger("kvatlas.tokenization")

_SELF_CHECK = (  # scripts, spaces, numbers, contractions and long runs that libraries differ in
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
    """Encodes texts without adding special tokens. Releases the GIL meanwhile."""

    name: str

    def ids_of(self, texts: Sequence[str]) -> list[Ids[int]]:
        """Return the token ids of every text, in the order of the texts."""
        ...


class HuggingFace(Encoder):
    """Hugging Face's `tokenizers`, which loads every tokenizer."""

    name = "tokenizers"

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer

    @override
    def ids_of(self, texts: Sequence[str]) -> list[Ids[int]]:
        # As a batch even if it is one text: `encode` would hold the GIL.
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [array("I", encoding.ids) for encoding in encodings]


class Fastokens(Encoder):
    """The `fastokens` library, many times as fast, which does not load every tokenizer."""

    name = "fastokens"

    def __init__(self, config: str, *, splits_special: bool) -> None:
        import fastokens  # does not exist for every platform

        self._tokenizer = fastokens.Tokenizer.from_json_str(config)
        self._splits_special = splits_special

    @override
    def ids_of(self, texts: Sequence[str]) -> list[Ids[int]]:
        # Little-endian bytes: 4 for each id, and 8 for the index after each text's last id.
        ids, offsets = self._tokenizer.encode_batch_flat(
            list(texts), add_special_tokens=False, split_special_tokens=self._splits_special
        )
        ends = np.frombuffer(offsets, dtype="<u8").tolist()
        return [array("I", ids[4 * start : 4 * end]) for start, end in pairwise(ends)]


def select_encoder(
    model: str, tokenizer: tokenizers.Tokenizer, config: str, added: Sequence[str]
) -> Encoder:
    """Return the fast library if it loads the tokenizer and passes the self-check, else the other.

    Args:
        model: the model's name, for the log.
        tokenizer: the tokenizer, loaded.
        config: the tokenizer's description in JSON.
        added: its added tokens, which the self-check covers, too.
    """
    reference = HuggingFace(tokenizer)
    try:
        fast = Fastokens(config, splits_special=tokenizer.encode_special_tokens)
        texts = [*_SELF_CHECK, *(f"a{token}b {token}\n{token}" for token in added)]
        differ = fast.ids_of(texts) != reference.ids_of(texts)
    except BaseException as error:  # a panic of the library is not an Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        _log.info("fastokens_not_used", model=model, detail=str(error))
        return reference
    if differ:
        _log.warning("fastokens_not_used", model=model, detail="its ids differ in the self-check")
        return reference
    return fast
