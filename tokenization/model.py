"""What a model's files say of its tokens: a tokenizer, special tokens, chat templates."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
import tokenizers
from tokenizers import AddedToken

from tokenization.chat import ChatTemplates
from tokenization.encode import HuggingFace, SegmentCache, find_split_points, select_encoder
from tokenization.errors import ChatError, TokenizerBrokenError

if TYPE_CHECKING:
    from pathlib import Path

    from tokenization.encode import Encoder, Ids, SplitPoints

Signature = tuple[tuple[str, int, int], ...]

_BYTES_PER_BYTE = 25
# Models of these types are rendered by code of the engine, whatever templates they come with.
_OWN_RENDERERS = {
    "gpt_oss": "Harmony",
    **dict.fromkeys(
        ("deepseek_v32", "deepseek_v4", "deepseek_v41", "kimi_k3", "inkling"), "the engine's code"
    ),
}
_BESIDE = (
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
)
_MISTRAL = ("tekken.json",)
_NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

_log = structlog.get_logger("kvatlas.tokenization")


@dataclass(frozen=True)
class Model:
    """The files of one model, loaded.

    tokenizer: as the file has it. before, after: special tokens that it adds to a text. encoder:
    the name of the library in use. file, signature: what was loaded, see `signature_of`. renders:
    what renders the model's chats where that is no template, else empty.
    """

    name: str
    tokenizer: tokenizers.Tokenizer
    segments: SegmentCache
    templates: ChatTemplates
    before: Ids[int]
    after: Ids[int]
    encoder: str
    file: Path
    signature: Signature
    renders: str = ""

    @property
    def bytes_used(self) -> int:
        """About what it takes, by the size of its file and as measured for large vocabularies."""
        (_, _, size), *_ = self.signature
        return size * _BYTES_PER_BYTE + self.segments.used

    def encode(self, text: str, *, add_special_tokens: bool) -> Ids[int]:
        """The ids of a text. Gives up Python's lock meanwhile.

        Raises ChatError for what is no Unicode text, TokenizerBrokenError.
        """
        try:
            ids = self.segments.ids(text)
        except UnicodeEncodeError as error:
            raise ChatError(f"the text is no Unicode text: {error.reason}") from error
        except BaseException as error:  # a panic of the library is not an Exception
            raise TokenizerBrokenError(self.name, str(error)) from error
        return self.before + ids + self.after if add_special_tokens else ids

    def offsets(self, text: str, *, add_special_tokens: bool) -> tuple[list[int], list[int]]:
        """The ids of a text, and for each two numbers: its first character and the one after it.

        By the slower library and without the cache. Raises TokenizerBrokenError.
        """
        try:
            (found,) = self.tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
        except BaseException as error:  # a panic of the library is not an Exception
            raise TokenizerBrokenError(self.name, str(error)) from error
        return found.ids, [edge for pair in found.offsets for edge in pair]


def signature_of(file: Path) -> Signature:
    """Tells whether anything that was loaded with a tokenizer.json has changed since."""
    more = sorted((file.parent / "additional_chat_templates").glob("*.jinja"))
    files = [file, *(file.parent / name for name in _BESIDE), *more]
    found = [(str(each), each.stat()) for each in files if each.is_file()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)


def load_model(name: str, file: Path, cache_bytes: int) -> Model:
    """The model whose tokenizer.json is `file`. cache_bytes: for ids of segments, 0 for none.

    Raises TokenizerBrokenError.
    """
    try:
        return _load(name, file, cache_bytes)
    except BaseException as error:  # a panic of the library is not an Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise TokenizerBrokenError(name, f"{file}: {error}") from error


def _load(name: str, file: Path, cache_bytes: int) -> Model:
    signature = signature_of(file)  # before anything is read
    if any((file.parent / name).is_file() for name in _MISTRAL):
        raise ValueError("the engine tokenizes with mistral-common, which is not done here")
    renders = _OWN_RENDERERS.get(str(_read(file.parent / "config.json").get("model_type")), "")
    config = _read(file.parent / "tokenizer_config.json")
    special = {
        f"{each}_token": _content(config[f"{each}_token"])
        for each in _NAMED
        if config.get(f"{each}_token") is not None
    }
    templates = ChatTemplates(_templates(file.parent, config), special)
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    unknown = [token for token in special.values() if tokenizer.token_to_id(token) is None]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in unknown])
    # From its own description: an object can differ from that where a token was added twice.
    described = tokenizer.to_str()
    tokenizer = tokenizers.Tokenizer.from_str(described)
    tokenizer.encode_special_tokens = bool(config.get("split_special_tokens"))
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    encoder = select_encoder(name, tokenizer, described, added)
    before, after = _added(tokenizer)
    splits = tokenizer.encode_special_tokens
    cuts = _cuts(name, described, templates, encoder, splits_special=splits)
    segments = SegmentCache(encoder, cuts, cache_bytes)
    return Model(
        name, tokenizer, segments, templates, before, after, encoder.name, file, signature, renders
    )


def _cuts(
    name: str, described: str, templates: ChatTemplates, by: Encoder, *, splits_special: bool
) -> SplitPoints:
    wanted = "\n".join([*templates.by_name.values(), *templates.special_tokens.values()])
    cuts = find_split_points(
        described,
        wanted,
        lambda text: by.ids_of([text])[0].tolist(),
        splits_special=splits_special,
    )
    if not cuts:
        _log.warning("segments_not_cached", model=name, detail="nowhere may its texts be cut")
    return cuts


def _added(tokenizer: tokenizers.Tokenizer) -> tuple[Ids[int], Ids[int]]:
    """The special tokens before and after a text."""
    (plain,) = HuggingFace(tokenizer).ids_of(["a"])
    whole = array("I", tokenizer.encode_batch_fast(["a"], add_special_tokens=True)[0].ids)
    for at in range(len(whole) - len(plain) + 1):
        if whole[at : at + len(plain)] == plain:
            return whole[:at], whole[at + len(plain) :]
    raise ValueError("its special tokens change what they are added to")


def _templates(directory: Path, config: dict[str, Any]) -> dict[str, str]:
    """By name; a file of its own counts more than the configuration."""
    said = config.get("chat_template")
    if isinstance(said, list):
        said = {each["name"]: each["template"] for each in said}
    found = {"default": said} if isinstance(said, str) else dict(said or {})
    file = directory / "chat_template.jinja"
    if file.is_file():
        found = {"default": file.read_text()}
    for more in sorted((directory / "additional_chat_templates").glob("*.jinja")):
        found[more.stem] = more.read_text()
    if not found:  # where the template is the processor's alone
        said = _read(directory / "chat_template.json").get("chat_template")
        found = {"default": said} if isinstance(said, str) else {}
    return found


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _content(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])
