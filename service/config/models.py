"""Sections of the configuration about models: their tokenizers and templates."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic needs it
from typing import Any, Literal

from pydantic import ByteSize, Field, field_validator

from kvevents import EngineSettings
from service.config.sections import Section
from tokenization import ChatOptions


class TokenizationSection(Section):
    """How text becomes token ids."""

    threads: int = Field(2, ge=1, le=256, description="texts tokenized at a time")
    queue: int = Field(64, ge=0, le=65_536, description="texts that may wait; more are refused")
    cache: ByteSize = Field(
        ByteSize(64 * 1024**2),
        validate_default=True,
        description="for ids of segments of texts, of each model; 0 for none",
    )
    memory: ByteSize = Field(
        ByteSize(4 * 1024**3),
        ge=1024**2,
        validate_default=True,
        description="for all models; the longest unused are dropped beyond it",
    )
    directories: tuple[Path, ...] = Field(
        (), description="of models: <name>/tokenizer.json, or as a hub cache"
    )
    aliases: dict[str, str] = Field({}, description="model -> the name its files go by")
    hub_cache: Path | None = Field(None, description="directory of the Hugging Face hub cache")
    download: bool = Field(default=False, description="ask the hub for what is nowhere here")


class ChatSection(Section):
    """How the engine of a model reads chats: what it was started with."""

    template: Path | None = Field(None, description="instead of the model's: --chat-template")
    content_format: Literal["auto", "string", "openai"] = "auto"
    template_arguments: dict[str, Any] = Field(
        {}, description="under those of a request: --default-chat-template-kwargs"
    )
    reasoning_efforts: dict[str, str] = Field(
        {}, description="a request's effort -> the template's: --reasoning-effort-map"
    )
    trust_request_template: bool = Field(
        default=False, description="requests may bring one: --trust-request-chat-template"
    )
    exclude_tools_when_none: bool = Field(
        default=False, description="--exclude-tools-when-tool-choice-none"
    )
    max_model_len: int | None = Field(None, ge=1, description="tokens of a prompt and its answer")

    @field_validator("template")
    @classmethod
    def _file(cls, template: Path | None) -> Path | None:
        if template is not None and not template.is_file():
            raise ValueError("there is no such file")
        return template

    @property
    def options(self) -> ChatOptions:
        """The same, as tokenization takes it."""
        return ChatOptions(
            template=None if self.template is None else self.template.read_text(),
            content_format=None if self.content_format == "auto" else self.content_format,
            arguments=self.template_arguments,
            efforts=self.reasoning_efforts,
            trust_request_template=self.trust_request_template,
            exclude_tools_when_none=self.exclude_tools_when_none,
            max_model_len=self.max_model_len,
        )


class ModelSection(Section):
    """A model that is known before any pod has spoken of it."""

    name: str = Field(min_length=1)
    tokenizer: Path | None = Field(None, description="a tokenizer.json or a directory with one")
    block_size: int | None = Field(None, ge=1, le=65_536, description="if not the index's")
    attention_chunk: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="tokens of a chunk of chunked local attention; 0: unknown",
    )
    speculative_decoding: bool | None = Field(
        None, description="whether its engines run a draft model (EAGLE, MTP); default: as seen"
    )
    offload_chunk_blocks: int = Field(
        0, ge=0, le=65_536, description="blocks that offload tiers load as a whole; 0: as seen"
    )
    chat: ChatSection = ChatSection()

    @property
    def engine_settings(self) -> EngineSettings:
        """What its engines were started with, as the events' side takes it."""
        return EngineSettings(
            self.attention_chunk, self.speculative_decoding, self.offload_chunk_blocks
        )
