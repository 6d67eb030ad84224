"""Where a model's tokenizer.json is: configured, in a directory of models, or in a hub cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tokenization.errors import TokenizerMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_FILE = "tokenizer.json"
_DOWNLOADED = (
    _FILE,
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*",
)


@dataclass(frozen=True)
class ModelFiles:
    """The places to look for a model's files, in this order."""

    configured: Mapping[str, Path] = field(default_factory=dict)
    """Model -> its tokenizer.json, or a directory that contains one."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Model -> the name to look for instead, here and below."""
    directories: Sequence[Path] = ()
    """Directories with models, as <name>/tokenizer.json or in the layout of a hub cache."""
    hub_cache: Path | None = None
    """The Hugging Face hub's cache; None for its default place (HF_HUB_CACHE, HF_HOME)."""
    download: bool = False
    """Whether to ask the hub for a model that is in none of these places."""
    origins: dict[str, str] = field(default_factory=dict)
    """Model -> where its engines say that they have it from: a name on the hub, or a path. It is
    looked for after the model's own name; a path only within `directories`."""

    def find(self, model: str) -> Path:
        """Return the path of the model's tokenizer.json. Blocks. Raises TokenizerMissingError."""
        name = self.aliases.get(model, model)
        path = self.configured.get(name)
        if path is not None:
            path = path / _FILE if path.is_dir() else path
            if not path.is_file():
                raise TokenizerMissingError(model, f"{path} is configured, but is not a file")
            return path
        for candidate in (*self._candidates(name), *self._told(model)):
            if candidate.is_file():
                return candidate
        places = ", ".join([*map(str, self.directories), "the hub cache"])
        raise TokenizerMissingError(model, f"none is configured, and there is none in {places}")

    def _told(self, model: str) -> Iterator[Path]:
        """Where the model's engines say that it is."""
        origin = self.origins.get(model, "")
        if not origin or model in self.aliases:
            return
        folder, is_odd = Path(origin), "\0" in origin or ".." in origin
        if not is_odd and any(folder.is_relative_to(directory) for directory in self.directories):
            yield folder / _FILE
        yield from self._candidates(origin)

    def _candidates(self, name: str) -> Iterator[Path]:
        if not _is_relative(name):
            return
        for directory in self.directories:
            yield directory / name / _FILE
            yield from _in_hub_cache(name, directory)
        yield from _in_hub_cache(name, self.hub_cache)
        if self.download:
            yield self._from_hub(name)

    def _from_hub(self, name: str) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            folder = snapshot_download(
                name, cache_dir=self.hub_cache, allow_patterns=list(_DOWNLOADED)
            )
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise TokenizerMissingError(name, f"the hub does not provide it: {error}") from error
        return Path(folder) / _FILE


def _is_relative(name: str) -> bool:
    """Whether a model's name is the path of a directory below another, not out of it."""
    return not any(part in ("", ".", "..") for part in name.split("/")) and "\0" not in name


def _in_hub_cache(name: str, cache: Path | None) -> Iterator[Path]:
    from huggingface_hub import try_to_load_from_cache  # slow to import, and rarely needed
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, _FILE, cache_dir=cache)
    except HFValidationError:
        return
    if isinstance(path, str):
        yield Path(path)
