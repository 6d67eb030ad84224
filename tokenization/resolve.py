"""A model's tokenizer, written as the engine would run it.

Hugging Face's transformers build tokenizers of some classes anew from their vocabulary, with other
steps than their tokenizer.json has. An engine uses what they build; here it is done once, and what
is written is used without transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenization.errors import TokenizationError

if TYPE_CHECKING:
    from pathlib import Path


class ResolveError(TokenizationError):
    """A tokenizer that transformers do not load, or cannot be asked to."""


def resolve_tokenizer(source: Path, target: Path) -> None:
    """Write to the directory `target` what transformers make of the model in `source`.

    Raises ResolveError.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ResolveError("this needs transformers: pip install 'kvatlas[resolve]'") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True)
        if not tokenizer.is_fast:
            raise ResolveError(f"{source}: its tokenizer has no tokenizer.json")
        tokenizer.save_pretrained(str(target))
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ResolveError(f"{source}: {error}") from error
