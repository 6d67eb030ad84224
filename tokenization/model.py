"""What a model's files say of its tokens: a tokenizer, special tokens, chat templates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import AddedToken

from tokenization.chat import ChatTemplates
from tokenization.errors import TokenizerBrokenError

if TYPE_CHECKING:
    from pathlib import Path

_NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class Model:
    """The files of one model, loaded."""

    name: str
    tokenizer: tokenizers.Tokenizer
    templates: ChatTemplates

    @cached_property
    def added_tokens(self) -> tuple[int, int]:
        """How many special tokens the tokenizer adds before and after a text."""
        plain = self.encode("a", add_special_tokens=False)
        whole = self.encode("a", add_special_tokens=True)
        for before in range(len(whole) - len(plain) + 1):
            if whole[before : before + len(plain)] == plain:
                return before, len(whole) - len(plain) - before
        return 0, 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The ids of a text. Gives up Python's lock meanwhile. Raises TokenizerBrokenError."""
        try:
            # In a batch of one, because `encode` keeps the lock and this does not.
            (encoded,) = self.tokenizer.encode_batch_fast(
                [text], add_special_tokens=add_special_tokens
            )
        except BaseException as error:  # a panic of the library is not an Exception
            raise TokenizerBrokenError(self.name, str(error)) from error
        ids: list[int] = encoded.ids
        return ids


def load_model(name: str, file: Path) -> Model:
    """The model whose tokenizer.json is `file`. Raises TokenizerBrokenError."""
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        config = _read(file.parent / "tokenizer_config.json")
        special = {
            f"{each}_token": _content(config[f"{each}_token"])
            for each in _NAMED
            if config.get(f"{each}_token") is not None
        }
        unknown = [token for token in special.values() if tokenizer.token_to_id(token) is None]
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in unknown])
        tokenizer.encode_special_tokens = bool(config.get("split_special_tokens"))
        return Model(name, tokenizer, ChatTemplates(_templates(file.parent, config), special))
    except BaseException as error:  # a panic of the library is not an Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise TokenizerBrokenError(name, f"{file}: {error}") from error


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
    return found


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _content(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])
