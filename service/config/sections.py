"""The sections of the configuration: what can be set, its bounds and defaults."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path  # noqa: TC003 - pydantic needs it
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import ByteSize, Field, field_validator, model_validator

from indexer import DEFAULT_TIER_WEIGHTS
from service.config.addresses import check_host_port, check_http_url
from service.config.credentials import read_headers, read_tokens
from service.config.paths import (  # noqa: TC001 - pydantic needs it
    ReadableFile,
    ReadableText,
    SnapshotPath,
)
from service.config.section import Section
from store import AddressError, StoreAddress, parse_address


class MetricsSection(Section):
    """Where Prometheus scrapes the service."""

    listen: str = Field("0.0.0.0:9464", description="host:port, or empty for no metrics")

    @field_validator("listen")
    @classmethod
    def _address(cls, listen: str) -> str:
        if listen:
            check_host_port(listen)
        return listen

    def listen_of(self, process: int) -> str:
        """Where a process listens, of several: each at a port of its own, counted from this one."""
        host, _, port = self.listen.rpartition(":")
        return f"{host}:{int(port) + process}" if port not in ("", "0") else self.listen

    connections: int = Field(32, ge=1, le=10_000, description="open at the same time")
    idle_seconds: float = Field(
        10.0, gt=0, le=3600, description="how long a connection may take to send its request"
    )
    ranks: int = Field(
        1000, ge=0, le=1_000_000, description="ranks of pods with metrics of their own"
    )


class TracesSection(Section):
    """Where spans of calls go (OpenTelemetry), and of which calls. Needs `kvatlas[traces]`."""

    endpoint: str = Field(
        "",
        description="collector that speaks OTLP over HTTP, such as http://collector:4318; "
        "empty: no traces",
    )
    sample_ratio: float = Field(
        0.01, ge=0, le=1, description="of calls whose caller does not say whether to trace them"
    )
    service_name: str = Field("kvatlas", min_length=1, description="service.name of the spans")
    instance: str = Field(
        "", description="service.instance.id of the spans; empty: host name and process id"
    )
    token_file: Path | None = Field(None, description="the first token in it is sent")
    headers_file: Path | None = Field(None, description="headers to send, `name: value` one a line")
    ca_file: ReadableFile | None = Field(
        None, description="authorities that the collector is known by; default: public ones"
    )
    timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="for the collector to take a batch"
    )
    interval_seconds: float = Field(
        5.0, gt=0, le=600, description="how long a span waits for a batch to fill"
    )
    batch_spans: int = Field(256, ge=1, le=10_000, description="sent at once")
    queue_spans: int = Field(
        2048, ge=1, le=1_000_000, description="that wait to be sent; further ones are dropped"
    )
    stop_seconds: float = Field(
        2.0, ge=0, le=60, description="at shutdown, how long to go on sending"
    )

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, endpoint: str) -> str:
        if endpoint:
            check_http_url(endpoint)
            if not _can_trace():
                raise ValueError("needs OpenTelemetry: pip install 'kvatlas[traces]'")
        return endpoint

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        for name, path, read in (
            ("token_file", self.token_file, read_tokens),
            ("headers_file", self.headers_file, read_headers),
        ):
            try:
                if path is not None:
                    read(path)
            except OSError as error:
                raise ValueError(f"{name}: {path} cannot be read: {error.strerror}") from error
        return self

    @property
    def url(self) -> str:
        """Where spans are posted: the endpoint, with OTLP's path if it has none."""
        has_path = urlsplit(self.endpoint).path not in ("", "/")
        return self.endpoint if has_path else f"{self.endpoint.rstrip('/')}/v1/traces"

    @property
    def instance_name(self) -> str:
        """The configured instance, or host name and process id."""
        return self.instance or _this_process()


def _can_trace() -> bool:
    """Whether the packages of the extra are installed."""
    try:
        return all(
            map(find_spec, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.common"))
        )
    except ModuleNotFoundError:
        return False


def _this_process() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


class LogSection(Section):
    """What the service logs to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: human on a terminal, otherwise json"
    )


class IndexSection(Section):
    """The index of blocks."""

    block_size: int = Field(16, ge=1, le=65_536, description="tokens per block")
    hash_seed: str = Field("", description="seed of the block keys, the same throughout the fleet")
    limit: ByteSize = Field(
        ByteSize(2 * 1024**3),
        ge=1024**2,
        validate_default=True,
        description="memory, such as 2GiB; beyond it the least recently used blocks are evicted",
    )
    pod_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="part of a full index from which on a pod's own blocks are evicted first",
    )
    tier_weights: dict[str, Annotated[float, Field(ge=0, le=1e6)]] = Field(
        dict(DEFAULT_TIER_WEIGHTS), description="what a block adds to a score, by its tier"
    )

    @field_validator("tier_weights")
    @classmethod
    def _over_defaults(cls, weights: dict[str, float]) -> dict[str, float]:
        return {**DEFAULT_TIER_WEIGHTS, **weights}

    count_copies: bool = Field(
        default=True, description="false for engines that announce a block again without a new copy"
    )


class SnapshotSection(Section):
    """Where the index is kept across restarts of the service."""

    path: SnapshotPath | None = Field(
        None, description="a file on a disk that outlives the service"
    )
    interval_seconds: float = Field(
        300.0, ge=0.05, le=86_400, description="how often it is written, besides at shutdown"
    )
    oldest_seconds: float = Field(
        3600.0, ge=0, description="an older snapshot is refused at start; 0: any age is read"
    )


class StoreSection(Section):
    """The store through which several replicas share the index."""

    url: str = Field("", description="redis://host:port, valkey://... and more; empty: not shared")
    namespace: str = Field("kvatlas", pattern=r"[A-Za-z0-9_.-]+", description="prefix of all keys")
    copy_blocks: bool = Field(
        default=True,
        description="keep a copy of other replicas' blocks in memory and answer from it",
    )
    max_lag_seconds: float = Field(
        2.0, gt=0, le=3600, description="a copy older than this answers only if the store does not"
    )
    ready_seconds: float = Field(
        10.0, ge=0, le=3600, description="at start, how long to wait for a complete copy"
    )
    lease_seconds: float = Field(
        3.0, ge=0.2, le=600, description="a replica that is silent for this long loses its pods"
    )
    timeout_seconds: float = Field(
        1.0, gt=0, le=60, description="for the store to accept a connection, and for each answer"
    )
    replica: str = Field("", description="name of this replica; empty: host name and process id")
    username: str = Field("", description="if the URL does not contain it")
    password: str = Field("", repr=False, description="if the URL does not contain it")
    password_file: ReadableText | None = Field(
        None, description="file with the password, if neither the URL nor password has it"
    )
    ca_file: ReadableFile | None = Field(
        None, description="with TLS: certificates of the authorities"
    )
    certificate_file: ReadableFile | None = Field(
        None, description="with TLS: certificate of this client"
    )
    key_file: ReadableFile | None = Field(None, description="with TLS: key of this client")

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
        """The address of the store: the URL, completed by the other settings."""
        address = parse_address(self.url)
        return replace(
            address,
            username=address.username or self.username,
            password=address.password or self.password or self._password_in_file(),
            ca_file=self.ca_file,
            certificate_file=self.certificate_file,
            key_file=self.key_file,
            timeout=self.timeout_seconds,
        )

    def _password_in_file(self) -> str:
        return "" if self.password_file is None else self.password_file.read_text().rstrip("\r\n")

    @property
    def replica_name(self) -> str:
        """The configured name, or host name and process id."""
        return self.replica or _this_process()


class RoutingSection(Section):
    """Handles, speculative blocks, and outcomes."""

    ttl_seconds: float = Field(
        2.0, gt=0, le=600, description="how long blocks are speculative, if the caller does not say"
    )
    max_ttl_seconds: float = Field(60.0, gt=0, le=3600, description="the longest that it may say")
    speculative_weight: float = Field(
        0.8, ge=0, le=1e6, description="what a speculative block adds to a score"
    )
    memory: ByteSize = Field(
        ByteSize(64 * 1024**2),
        ge=1024**2,
        validate_default=True,
        description="of handles, and as much again of speculative blocks",
    )
    handle_seconds: float = Field(
        10.0, gt=0, le=3600, description="how long after an answer its handle can be recorded"
    )
    outcome_seconds: float = Field(
        900.0, gt=0, le=86_400, description="how long after its routing an outcome can be reported"
    )
    open_outcomes: int = Field(
        100_000, ge=1, le=100_000_000, description="routings whose outcome can be reported"
    )
    under_delivery_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of promised tokens that may be missing before a pod is doubted; 1: any",
    )
    under_delivery_outcomes: int = Field(
        32, ge=1, le=10_000, description="over how many outcomes that is judged"
    )
    under_delivery_seconds: float = Field(
        60.0, ge=0, le=86_400, description="at least so long between two doubts of one rank"
    )

    @model_validator(mode="after")
    def _ttl(self) -> Self:
        if self.ttl_seconds > self.max_ttl_seconds:
            raise ValueError("ttl_seconds is greater than max_ttl_seconds")
        return self
