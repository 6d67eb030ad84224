"""The sections of the configuration: what can be set, its bounds and its defaults."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path  # noqa: TC003 - pydantic needs it
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from indexer import DEFAULT_TIER_WEIGHTS
from kvevents import ExtraStrings
from store import AddressError, StoreAddress, parse_address
from tokenization import ChatOptions


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GrpcSection(_Section):
    """Where requests come in."""

    listen: tuple[str, ...] = Field(
        ("0.0.0.0:50051",), description="addresses: host:port (port 0: any) or unix:/path"
    )
    drain_seconds: float = Field(
        10.0, ge=0, le=3600, description="how long calls under way may take at shutdown"
    )

    @field_validator("listen")
    @classmethod
    def _addresses(cls, listen: tuple[str, ...]) -> tuple[str, ...]:
        if not listen:
            raise ValueError("at least one address to listen on is needed")
        for address in listen:
            if not address.startswith("unix:"):
                _check_host_port(address)
        return listen


class MetricsSection(_Section):
    """Where Prometheus scrapes."""

    listen: str = Field("0.0.0.0:9464", description="host:port, or empty for no metrics")

    @field_validator("listen")
    @classmethod
    def _address(cls, listen: str) -> str:
        if listen:
            _check_host_port(listen)
        return listen


class LogSection(_Section):
    """What is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: human on a terminal, else json"
    )


class IndexSection(_Section):
    """The map of blocks."""

    block_size: int = Field(16, ge=1, le=65_536, description="tokens per block")
    hash_seed: str = Field("", description="seed of the block keys, the same for the whole fleet")
    limit: ByteSize = Field(
        ByteSize(2 * 1024**3), ge=1024**2, validate_default=True, description="such as 2GiB"
    )
    tier_weights: dict[str, Annotated[float, Field(ge=0, le=1e6)]] = Field(
        dict(DEFAULT_TIER_WEIGHTS), description="what a block in a tier adds to a score"
    )
    count_copies: bool = Field(
        default=True, description="false for engines that announce again what has no new copy"
    )


class EventsSection(_Section):
    """When events are trusted, and what is done when they are not."""

    policy: Literal["keep", "forget"] = Field(
        "keep", description="what may be gone: keep it and say so, or forget it"
    )
    poll_seconds: float = Field(
        10.0, ge=0.05, le=86_400, description="how often replay sockets are asked for what is new"
    )
    replay_timeout_seconds: float = Field(2.0, gt=0, le=600)
    concurrent_replays: int = Field(4, ge=1, le=1000)
    stale_seconds: float = Field(
        60.0, ge=0, description="silence after which a pod is stale; 0: never"
    )
    departed_seconds: float = Field(
        0.0, ge=0, description="silence after which a pod is forgotten; 0: never"
    )
    queue_messages: int = Field(
        1000, ge=1, le=1_000_000, description="messages of a publisher that may wait here"
    )
    waiting_limit: ByteSize = Field(
        ByteSize(256 * 1024**2),
        ge=64 * 1024,
        validate_default=True,
        description="memory for frames that wait for replays and blocks that wait for parents",
    )


class SnapshotSection(_Section):
    """Where the index is kept while the service does not run."""

    path: Path | None = Field(None, description="a file, on a disk that outlives the service")
    interval_seconds: float = Field(
        300.0, ge=0.05, le=86_400, description="how often it is written, besides at shutdown"
    )
    oldest_seconds: float = Field(
        3600.0, ge=0, description="an older one is not read at start; 0: any is"
    )

    @field_validator("path")
    @classmethod
    def _directory(cls, path: Path | None) -> Path | None:
        if path is not None and path.is_dir():
            raise ValueError("a snapshot is a file, and this is a directory")
        return path


class StoreSection(_Section):
    """Where the index is kept for several replicas of the service to share."""

    url: str = Field(
        "", description="redis://host:port, valkey://... and more; empty: not shared, in memory"
    )
    namespace: str = Field("kvatlas", pattern=r"[A-Za-z0-9_.-]+", description="of all its keys")
    copy_blocks: bool = Field(
        default=True, description="keep a copy of the others' blocks in memory, and answer from it"
    )
    max_lag_seconds: float = Field(
        2.0, gt=0, le=3600, description="older than this a copy is not answered from unmarked"
    )
    ready_seconds: float = Field(
        10.0, ge=0, le=3600, description="ready without a copy after this time"
    )
    lease_seconds: float = Field(
        3.0, ge=0.2, le=600, description="a replica not heard of for this time loses its pods"
    )
    timeout_seconds: float = Field(1.0, gt=0, le=60, description="of every call of the store")
    replica: str = Field("", description="name of this replica; empty: host and process")
    username: str = Field("", description="if the URL does not say it")
    password: str = Field("", repr=False, description="if the URL does not say it")
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        if url:
            try:
                parse_address(url)
            except AddressError as error:
                raise ValueError(str(error)) from error
        return url

    @property
    def address(self) -> StoreAddress:
        """Where it is, with what is not said in the URL."""
        address = parse_address(self.url)
        return replace(
            address,
            username=address.username or self.username,
            password=address.password or self.password,
            ca_file=self.ca_file,
            certificate_file=self.certificate_file,
            key_file=self.key_file,
            timeout=self.timeout_seconds,
        )

    @property
    def replica_name(self) -> str:
        """What this replica is called."""
        return self.replica or f"{socket.gethostname()}-{os.getpid()}"


class LimitsSection(_Section):
    """What a single request may ask."""

    prompt_tokens: int = Field(1_048_576, ge=1, le=2**31 - 1)
    text_bytes: ByteSize = Field(ByteSize(8 * 1024**2), ge=1, le=2**31 - 1, validate_default=True)


class TokenizationSection(_Section):
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


class ChatSection(_Section):
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
            most_tokens=self.max_model_len,
        )


class ModelSection(_Section):
    """A model that is known before any pod has spoken of it."""

    name: str = Field(min_length=1)
    tokenizer: Path | None = Field(None, description="a tokenizer.json or a directory with one")
    block_size: int | None = Field(None, ge=1, le=65_536, description="if not the index's")
    chat: ChatSection = ChatSection()


class SourceSection(_Section):
    """A ZMQ endpoint from which events come."""

    endpoint: str = Field(description="such as tcp://10.0.0.1:5557, or tcp://*:5557 to bind")
    bind: bool = Field(default=False, description="listen there for pods that connect")
    topic: str = Field("", description="prefix that topics must have; empty: all")
    pod: str = Field("", description="the pod behind the endpoint; empty: the topic says it")
    model: str = Field("", description="the model it serves; empty: the topic says it")
    rank: int | None = Field(
        None, ge=0, le=2**31 - 1, description="its data-parallel rank, if not as published"
    )
    extra_strings: ExtraStrings = Field(
        ExtraStrings.AUTO, description="plain strings in extra keys: auto, salt or image"
    )
    replay: str = Field(
        "",
        description="replay socket of the engine; tcp://{host}:5558 for all pods (plus rank)",
    )

    @field_validator("replay")
    @classmethod
    def _replay(cls, replay: str) -> str:
        scheme, separator, rest = replay.partition("://")
        if not replay:
            return replay
        if not separator or scheme not in {"tcp", "ipc", "inproc"} or not rest or "*" in rest:
            raise ValueError(f"replay {replay!r} is no address to connect to")
        if scheme == "tcp" or "{host}" in rest:
            _check_host_port(rest)
        return replay

    @model_validator(mode="after")
    def _endpoint(self) -> Self:
        scheme, separator, rest = self.endpoint.partition("://")
        if not separator or scheme not in {"tcp", "ipc", "inproc"} or not rest:
            raise ValueError(f"endpoint {self.endpoint!r} is not tcp://, ipc:// or inproc://")
        if scheme == "tcp" and ":" not in rest:
            raise ValueError(f"endpoint {self.endpoint!r} has no port")
        if "*" in rest and not self.bind:
            raise ValueError(f"cannot connect to the wildcard {self.endpoint!r}: set bind = true")
        if self.bind and self.replay and "{host}" not in self.replay:
            raise ValueError(
                "many pods may connect to a bound endpoint: write replay with {host} for theirs"
            )
        if self.bind and self.pod:
            raise ValueError("many pods may connect to a bound endpoint: leave pod empty")
        return self


def _check_host_port(address: str) -> None:
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{address!r} is not host:port with a port from 0 to 65535")
