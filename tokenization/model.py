"""One model's files, loaded: its tokenizer, special tokens and chat templates."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
import tokenizers
from tokenizers import AddedToken

from tokenization.chat import ChatTemplates
from tokenization.encode import (
    HuggingFace,
    SegmentCache,
    SplitPoints,
    find_split_points,
    select_encoder,
)
from tokenization.errors import ChatError, TokenizerBrokenError

if TYPE_CHECKING:
    from pathlib import Path

    from tokenization.encode import Encoder, Ids

Signature = tuple[tuple[str, int, int], ...]
"""Of each file of a model: its path, modification time in nanoseconds and size."""

_MEMORY_FACTOR = 25  # bytes of memory for each byte of tokenizer.json
# Code of the engine renders the chats of these types of models, whatever templates they ship.
_ENGINE_RENDERERS = {
    "gpt_oss": "Harmony",
    **dict.fromkeys(
        ("deepseek_v32", "deepseek_v4", "deepseek_v41", "kimi_k3", "inkling"), "the engine's code"
    ),
}
_OTHER_FILES = (
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
)
_MISTRAL_FILES = ("tekken.json",)
_SPECIAL_TOKENS = tuple(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)

_log = structlog.get_logger("kvatlas.tokenization")


@dataclass(frozen=True)
class Model:
    """The files of one model, loaded."""

    name: str
    tokenizer: tokenizers.Tokenizer
    """As the file describes it, without truncation and padding."""
    segments: SegmentCache
    templates: ChatTemplates
    before: Ids[int]
    """Special tokens that the tokenizer adds before a text."""
    after: Ids[int]
    """Special tokens that it adds after a text."""
    encoder: str
    """Name of the library that encodes."""
    file: Path
    """The tokenizer.json."""
    signature: Signature
    """Of the files as they were before they were read: see `signature_of`."""
    renderer: str = ""
    """Names what renders the model's chats if that is no template, else empty."""

    @property
    def bytes_used(self) -> int:
        """An estimate of the memory the model takes, measured for large vocabularies."""
        (_, _, size), *_ = self.signature
        return size * _MEMORY_FACTOR + self.segments.used

    def encode(self, text: str, *, add_special_tokens: bool) -> Ids[int]:
        """Return the token ids of a text. Releases the GIL meanwhile.

        Raises:
            ChatError: the text contains lone surrogates.
            TokenizerBrokenError: the tokenizer fails.
        """
        try:
            ids = self.segments.ids(text)
        except UnicodeEncodeError as error:
            raise ChatError(f"the text is no Unicode text: {error.reason}") from error
        except BaseException as error:  # a panic of the library is not an Exception
            raise TokenizerBrokenError(self.name, type(error).__name__) from error  # quotes no text
        return self.before + ids + self.after if add_special_tokens else ids

    def offsets(self, text: str, *, add_special_tokens: bool) -> tuple[list[int], list[int]]:
        """Return the token ids of a text, and where in the text each token begins and ends.

        The second list has two entries for each token: the index of its first character and of the
        character after its last one. Slow: uses Hugging Face's library and no cache.

        Raises:
            TokenizerBrokenError: the tokenizer fails.
        """
        try:
            (encoding,) = self.tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
        except BaseException as error:  # a panic of the library is not an Exception
            raise TokenizerBrokenError(self.name, type(error).__name__) from error
        return encoding.ids, [edge for pair in encoding.offsets for edge in pair]


def signature_of(file: Path) -> Signature:
    """Return what changes whenever a file changes that is loaded with this tokenizer.json."""
    templates = sorted((file.parent / "additional_chat_templates").glob("*.jinja"))
    files = [file, *(file.parent / name for name in _OTHER_FILES), *templates]
    stats = [(str(path), path.stat()) for path in files if path.is_file()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def load_model(name: str, file: Path, cache_bytes: int) -> Model:
    """Load a model.

    Args:
        name: the model's name.
        file: its tokenizer.json; the other files are beside it.
        cache_bytes: size of the segment cache, 0 for none.

    Raises:
        TokenizerBrokenError: a file cannot be read, or is not supported.
    """
    try:
        return _load(name, file, cache_bytes)
    except BaseException as error:  # a panic of the library is not an Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise TokenizerBrokenError(name, f"{file}: {error}") from error


def _load(name: str, file: Path, cache_bytes: int) -> Model:
    signature = signature_of(file)  # before anything is read
    if any((file.parent / other).is_file() for other in _MISTRAL_FILES):
        raise ValueError("the engine tokenizes with mistral-common, which kvatlas does not")
    model_type = str(_read(file.parent / "config.json").get("model_type"))
    config = _read(file.parent / "tokenizer_config.json")
    special = {
        token: _content(config[token]) for token in _SPECIAL_TOKENS if config.get(token) is not None
    }
    templates = ChatTemplates(_templates(file.parent, config), special)
    tokenizer, description = _tokenizer(file, special, config)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    encoder = select_encoder(name, tokenizer, description, added)
    before, after = _special_tokens_around(tokenizer)
    split_points = _split_points(
        name, description, templates, encoder, splits_special=tokenizer.encode_special_tokens
    )
    return Model(
        name,
        tokenizer,
        SegmentCache(encoder, split_points, cache_bytes),
        templates,
        before,
        after,
        encoder.name,
        file,
        signature,
        _ENGINE_RENDERERS.get(model_type, ""),
    )


def _tokenizer(
    file: Path, special: dict[str, str], config: dict[str, Any]
) -> tuple[tokenizers.Tokenizer, str]:
    """Return the tokenizer as an engine loads it, and its description in JSON."""
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    unknown = [token for token in special.values() if tokenizer.token_to_id(token) is None]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in unknown])
    # From its own description: an object can differ from that where a token was added twice.
    description = tokenizer.to_str()
    tokenizer = tokenizers.Tokenizer.from_str(description)
    tokenizer.encode_special_tokens = bool(config.get("split_special_tokens"))
    return tokenizer, description


def _split_points(
    name: str,
    description: str,
    templates: ChatTemplates,
    encoder: Encoder,
    *,
    splits_special: bool,
) -> SplitPoints:
    wanted = "\n".join([*templates.by_name.values(), *templates.special_tokens.values()])
    split_points = find_split_points(
        description,
        wanted,
        lambda text: encoder.ids_of([text])[0].tolist(),
        splits_special=splits_special,
    )
    if not split_points:
        _log.warning("segments_not_cached", model=name, detail="its texts have no split points")
    return split_points


def _special_tokens_around(tokenizer: tokenizers.Tokenizer) -> tuple[Ids[int], Ids[int]]:
    """Return the special tokens that the tokenizer adds before and after a text."""
    (plain,) = HuggingFace(tokenizer).ids_of(["a"])
    whole = array("I", tokenizer.encode_batch_fast(["a"], add_special_tokens=True)[0].ids)
    for start in range(len(whole) - len(plain) + 1):
        end = start + len(plain)
        if whole[start:end] == plain:
            return whole[:start], whole[end:]
    raise ValueError("its special tokens change the text that they are added to")


def _templates(directory: Path, config: dict[str, Any]) -> dict[str, str]:
    """Return the chat templates by name. Files override the configuration, as in an engine."""
    configured = config.get("chat_template")
    if isinstance(configured, list):
        configured = {entry["name"]: entry["template"] for entry in configured}
    templates = {"default": configured} if isinstance(configured, str) else dict(configured or {})
    file = directory / "chat_template.jinja"
    if file.is_file():
        templates = {"default": file.read_text()}
    for path in sorted((directory / "additional_chat_templates").glob("*.jinja")):
        templates[path.stem] = path.read_text()
    if not templates:  # some multimodal models ship a template for their processor only
        template = _read(directory / "chat_template.json").get("chat_template")
        templates = {"default": template} if isinstance(template, str) else {}
    return templates


def _read(file: Path) -> dict[str, Any]:
    """Return a JSON file's object, empty if there is no file."""
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def _content(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])
