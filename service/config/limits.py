"""The section about limits: what one request may ask, and how many may be under way."""

from __future__ import annotations

from pydantic import ByteSize, Field

from service.config.section import Section

_MAX_SIZE = 2**31 - 1  # of a gRPC message


class LimitsSection(Section):
    """Limits of requests. A request beyond one of them is answered with RESOURCE_EXHAUSTED."""

    prompt_tokens: int = Field(1_048_576, ge=1, le=2**31 - 1, description="tokens of a prompt")
    text_bytes: ByteSize = Field(
        ByteSize(8 * 1024**2),
        ge=1,
        le=_MAX_SIZE,
        validate_default=True,
        description="size of a text, or of the JSON of a request",
    )
    json_values: int = Field(
        100_000, ge=1, le=100_000_000, description="values in the JSON of a request"
    )
    prompts: int = Field(
        256,
        ge=1,
        le=1_000_000,
        description="prompts of a ScoreMany, or routings or outcomes of a call",
    )
    call_tokens: int = Field(
        2_097_152, ge=1, le=2**31 - 1, description="tokens of all prompts of a ScoreMany"
    )
    stream_requests: int = Field(
        64, ge=1, le=100_000, description="requests of a ScoreStream under way at the same time"
    )
    pods: int = Field(4096, ge=1, le=1_000_000, description="pods that a prompt is scored for")
    multimodal_items: int = Field(
        4096, ge=1, le=1_000_000, description="multimodal items of a prompt"
    )
    name_bytes: int = Field(
        512,
        ge=1,
        le=1_000_000,
        description="length of a name: of a pod, an adapter, a salt, the hash of an item",
    )
    answer_bytes: ByteSize = Field(
        ByteSize(16 * 1024**2),
        ge=1024,
        le=_MAX_SIZE,
        validate_default=True,
        description="size of an answer",
    )
    concurrent_calls: int = Field(
        1000, ge=1, le=1_000_000, description="calls under way at the same time"
    )
    concurrent_bytes: ByteSize = Field(
        ByteSize(256 * 1024**2),
        ge=1024**2,
        validate_default=True,
        description="size of the requests under way; over http2 also of those that arrive",
    )
    tenant_key: str = Field(
        "",
        pattern=r"^[a-z0-9_.-]*$",
        description="metadata key in which callers name their tenant; empty: none",
    )
    concurrent_calls_per_tenant: int = Field(
        100, ge=1, le=1_000_000, description="calls of one tenant under way at the same time"
    )
