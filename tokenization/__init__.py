"""Text -> token ids, as the model server would.

In path order: `files` finds a model's tokenizer.json, `tokenizers` loads it once and encodes off
the event loop, `errors` says why not.
"""

from __future__ import annotations

from tokenization.errors import TokenizationError, TokenizerBrokenError, TokenizerMissingError
from tokenization.tokenizers import Tokenizers

__all__ = ["TokenizationError", "TokenizerBrokenError", "TokenizerMissingError", "Tokenizers"]
