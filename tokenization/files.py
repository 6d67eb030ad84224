"""Where a model's tokenizer.json lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenization.errors import TokenizerMissingError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILE = "tokenizer.json"


def tokenizer_file(model: str, configured: Mapping[str, Path], hub_cache: Path | None) -> Path:
    """The path of the model's tokenizer.json: as configured, else in the hub cache.

    configured: model -> a tokenizer.json or a directory that has one. hub_cache: as Hugging Face
    tools fill it; None for the usual place (HF_HUB_CACHE, HF_HOME). Nothing is downloaded.
    Raises TokenizerMissingError.
    """
    path = configured.get(model)
    if path is not None:
        path = path / _FILE if path.is_dir() else path
        if not path.is_file():
            raise TokenizerMissingError(model, f"{path} is configured, but is not a file")
        return path
    from huggingface_hub import try_to_load_from_cache  # slow to import, and rarely needed
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, _FILE, cache_dir=hub_cache)
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise TokenizerMissingError(model, "none is configured and the hub cache has none")
    return Path(found)
