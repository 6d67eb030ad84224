"""Rewrites a model's tokenizer as the engine runs it.

Hugging Face's transformers rebuild the tokenizers of some classes from their vocabulary, with other
steps than their tokenizer.json has, and an engine uses the result. Here that is done once; the
files it writes are then used without transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenization.errors import TokenizationError

if TYPE_CHECKING:
    from pathlib import Path


class ResolveError(TokenizationError):
    """Transformers cannot load the tokenizer, or are not installed."""


def resolve_tokenizer(source: Path, target: Path) -> None:
    """Load the model in `source` with transformers and write its tokenizer to `target`.

    Args:
        source: directory of the model.
        target: directory to write, created if need be.

    Raises:
        ResolveError: transformers are missing or cannot load the tokenizer.
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
