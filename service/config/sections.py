"""The sections of the configuration: what can be set, its bounds and its defaults."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path  # noqa: TC003 - pydantic needs it
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from indexer import DEFAULT_TIER_WEIGHTS
from kvevents import ExtraStrings
from store import AddressError, StoreAddress, parse_address


class Section(BaseModel):
    """One part of the configuration: frozen, and without anything it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GrpcSection(Section):
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


class MetricsSection(Section):
    """Where Prometheus scrapes."""

    listen: str = Field("0.0.0.0:9464", description="host:port, or empty for no metrics")

    @field_validator("listen")
    @classmethod
    def _address(cls, listen: str) -> str:
        if listen:
            _check_host_port(listen)
        return listen


class LogSection(Section):
    """What is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: human on a terminal, else json"
    )


class IndexSection(Section):
    """The map of blocks."""

    block_size: int = Field(16, ge=1, le=65_536, description="tokens per block")
    hash_seed: str = Field("", description="seed of the block keys, the same for the whole fleet")
    limit: ByteSize = Field(
        ByteSize(2 * 1024**3), ge=1024**2, validate_default=True, description="such as 2GiB"
    )
    tier_weights: dict[str, Annotated[float, Field(ge=0, le=1e6)]] = Field(
        dict(DEFAULT_TIER_WEIGHTS), description="what a block in a tier adds to a score"
    )

    @field_validator("tier_weights")
    @classmethod
    def _over_defaults(cls, weights: dict[str, float]) -> dict[str, float]:
        return {**DEFAULT_TIER_WEIGHTS, **weights}

    count_copies: bool = Field(
        default=True, description="false for engines that announce again what has no new copy"
    )


class EventsSection(Section):
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


class SnapshotSection(Section):
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


class StoreSection(Section):
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


class LimitsSection(Section):
    """What a single request may ask."""

    prompt_tokens: int = Field(1_048_576, ge=1, le=2**31 - 1)
    text_bytes: ByteSize = Field(ByteSize(8 * 1024**2), ge=1, le=2**31 - 1, validate_default=True)


class SourceSection(Section):
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
        ExtraStrings.AUTO, description="plain strings in extra keys: auto, salt, image or none"
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
