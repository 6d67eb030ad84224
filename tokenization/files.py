"""Where a model's tokenizer.json lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tokenization.errors import TokenizerMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_FILE = "tokenizer.json"
_WANTED = (
    _FILE,
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*",
)


@dataclass(frozen=True)
class ModelFiles:
    """Where to look, in this order.

    aliases: model -> the name its files go by. configured: that name -> a tokenizer.json or a
    directory with one. directories: of models, as <name>/tokenizer.json or as the hub cache has
    them. hub_cache: None for the usual place (HF_HUB_CACHE, HF_HOME). download: whether the hub may
    be asked at last.
    """

    configured: Mapping[str, Path] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    directories: Sequence[Path] = ()
    hub_cache: Path | None = None
    download: bool = False

    def find(self, model: str) -> Path:
        """The model's tokenizer.json. Blocks. Raises TokenizerMissingError."""
        name = self.aliases.get(model, model)
        path = self.configured.get(name)
        if path is not None:
            path = path / _FILE if path.is_dir() else path
            if not path.is_file():
                raise TokenizerMissingError(model, f"{path} is configured, but is not a file")
            return path
        if _is_name(name):
            for found in self._candidates(name):
                if found.is_file():
                    return found
        places = [str(directory) for directory in self.directories]
        looked_in = f"none is configured and none is in {', '.join([*places, 'the hub cache'])}"
        raise TokenizerMissingError(model, looked_in)

    def _candidates(self, name: str) -> Iterator[Path]:
        for directory in self.directories:
            yield directory / name / _FILE
            yield from _in_hub_cache(name, directory)
        yield from _in_hub_cache(name, self.hub_cache)
        if self.download:
            yield from self._from_hub(name)

    def _from_hub(self, name: str) -> Iterator[Path]:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            folder = snapshot_download(name, cache_dir=self.hub_cache, allow_patterns=list(_WANTED))
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise TokenizerMissingError(name, f"the hub does not give it: {error}") from error
        yield Path(folder) / _FILE


def _is_name(name: str) -> bool:
    """Whether it can be the name of a directory below another."""
    return not any(part in ("", ".", "..") for part in name.split("/")) and "\0" not in name


def _in_hub_cache(name: str, cache: Path | None) -> Iterator[Path]:
    from huggingface_hub import try_to_load_from_cache  # slow to import, and rarely needed
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, _FILE, cache_dir=cache)
    except HFValidationError:
        return
    if isinstance(found, str):
        yield Path(found)
