"""The sections about models: their tokenizers, chat templates and engine settings."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic needs it
from typing import Annotated, Any, Literal, Self

from pydantic import ByteSize, Field, model_validator

from kvevents import EngineSettings
from service.config.paths import (  # noqa: TC001 - pydantic needs it
    ExistingDirectory,
    ReadableText,
    TokenizerPath,
)
from service.config.section import Section
from tokenization import ChatOptions


class TokenizationSection(Section):
    """How text is turned into token ids."""

    threads: int = Field(2, ge=1, le=256, description="texts tokenized at the same time")
    queue: int = Field(
        64, ge=0, le=65_536, description="texts that may wait; further ones are refused"
    )
    queue_bytes: ByteSize = Field(
        ByteSize(64 * 1024**2),
        validate_default=True,
        description="size of the texts that may wait; further ones are refused",
    )
    template_seconds: float = Field(
        5.0, gt=0, le=600, description="how long a chat template may take for a chat"
    )
    template_memory: ByteSize = Field(
        ByteSize(256 * 1024**2),
        ge=16 * 1024**2,
        validate_default=True,
        description="memory of a template that a request brings, for a chat",
    )
    cache: ByteSize = Field(
        ByteSize(64 * 1024**2),
        validate_default=True,
        description="memory of the segment cache of each model; 0 for none",
    )
    memory: ByteSize = Field(
        ByteSize(4 * 1024**3),
        ge=1024**2,
        validate_default=True,
        description="memory of all models; beyond it the least recently used are unloaded",
    )
    directories: tuple[ExistingDirectory, ...] = Field(
        (), description="with models: <name>/tokenizer.json, or laid out as a hub cache"
    )
    aliases: dict[str, str] = Field({}, description="model -> the name its files are stored under")
    hub_cache: Path | None = Field(None, description="directory of the Hugging Face hub cache")
    download: bool = Field(
        default=False, description="download from the hub what is not found locally"
    )

    @model_validator(mode="after")
    def _cache(self) -> Self:
        if not self.download and self.hub_cache is not None and not self.hub_cache.is_dir():
            raise ValueError(f"hub_cache: there is no directory {self.hub_cache}")
        return self


class ChatSection(Section):
    """How the model's engines read chats: the flags they were started with."""

    template: ReadableText | None = Field(
        None, description="replaces the model's own: --chat-template"
    )
    content_format: Literal["auto", "string", "openai"] = Field(
        "auto", description="--chat-template-content-format"
    )
    template_arguments: dict[str, Any] = Field(
        {}, description="defaults for those of a request: --default-chat-template-kwargs"
    )
    reasoning_efforts: dict[str, str] = Field(
        {}, description="effort in a request -> in the template: --reasoning-effort-map"
    )
    trust_request_template: bool = Field(
        default=False, description="accept templates in requests: --trust-request-chat-template"
    )
    exclude_tools_when_none: bool = Field(
        default=False, description="leave out tools: --exclude-tools-when-tool-choice-none"
    )
    max_model_len: int | None = Field(
        None, ge=1, description="tokens of a prompt and its answer together"
    )

    @property
    def options(self) -> ChatOptions:
        """The section as `tokenization` takes it. Reads the template file."""
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
    """A model, known before any pod announces it."""

    name: str = Field(min_length=1, description="as in topics and requests")
    tokenizer: TokenizerPath | None = Field(
        None, description="tokenizer.json or a directory with one; loaded at start"
    )
    block_size: int | None = Field(None, ge=1, le=65_536, description="overrides index.block_size")
    attention_chunk: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="chunk of chunked local attention, in tokens; 0: unknown",
    )
    speculative_decoding: bool | None = Field(
        None, description="its engines run a draft model (EAGLE, MTP); default: detected"
    )
    offload_chunk_blocks: int = Field(
        0, ge=0, le=65_536, description="blocks that offload tiers load as one unit; 0: detected"
    )
    tier_weights: dict[str, Annotated[float, Field(ge=0, le=1e6)]] = Field(
        {}, description="as index.tier_weights, for this model; `speculative`: speculative blocks"
    )
    chat: ChatSection = ChatSection()

    @property
    def engine_settings(self) -> EngineSettings:
        """The settings of the model's engines, as `kvevents` takes them."""
        return EngineSettings(
            self.attention_chunk, self.speculative_decoding, self.offload_chunk_blocks
        )
