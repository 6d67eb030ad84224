"""Configuration: defaults, one file, the environment and flags, in this order of precedence.

This is the one place that reads the environment. What comes out is frozen and valid as a whole.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from indexer import DEFAULT_TIER_WEIGHTS
from kvevents import ExtraStrings

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT_PREFIX = "KVATLAS_"
CONFIG_VARIABLE = "KVATLAS_CONFIG"


class ConfigurationError(Exception):
    """Everything that is wrong with a configuration, one line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


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


class LimitsSection(_Section):
    """What a single request may ask."""

    prompt_tokens: int = Field(1_048_576, ge=1, le=2**31 - 1)
    text_bytes: ByteSize = Field(ByteSize(8 * 1024**2), ge=1, le=2**31 - 1, validate_default=True)


class TokenizationSection(_Section):
    """How text becomes token ids."""

    threads: int = Field(2, ge=1, le=256, description="texts tokenized at a time")
    hub_cache: Path | None = Field(None, description="directory of the Hugging Face hub cache")


class ModelSection(_Section):
    """A model that is known before any pod has spoken of it."""

    name: str = Field(min_length=1)
    tokenizer: Path | None = Field(None, description="a tokenizer.json or a directory with one")
    block_size: int | None = Field(None, ge=1, le=65_536, description="if not the index's")


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


class Configuration(BaseSettings):
    """All there is to configure. See the README for an example of each part."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
    )

    grpc: GrpcSection = GrpcSection()
    metrics: MetricsSection = MetricsSection()
    log: LogSection = LogSection()
    index: IndexSection = IndexSection()
    events: EventsSection = EventsSection()
    snapshot: SnapshotSection = SnapshotSection()
    limits: LimitsSection = LimitsSection()
    tokenization: TokenizationSection = TokenizationSection()
    default_model: str = Field("", description="for pods whose topic does not say the model")
    pod_names: dict[str, str] = Field({}, description="pod as in topics -> ip:port as callers say")
    models: tuple[ModelSection, ...] = ()
    sources: tuple[SourceSection, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [model.name for model in self.models]
        for name in {name for name in names if names.count(name) > 1}:
            raise ValueError(f"model {name!r} is configured twice")
        endpoints = [source.endpoint for source in self.sources]
        for endpoint in {e for e in endpoints if endpoints.count(e) > 1 and not e.endswith(":0")}:
            raise ValueError(f"endpoint {endpoint!r} is configured twice")
        return self

    def block_size_of(self, model: str) -> int:
        """Tokens per block of the model's keys."""
        for configured in self.models:
            if configured.name == model and configured.block_size is not None:
                return configured.block_size
        return self.index.block_size


def load(path: Path | None, flags: Mapping[str, Any]) -> Configuration:
    """The configuration from a TOML file (none: KVATLAS_CONFIG names it, if set) and `flags`.

    flags: nested as the file is. Raises ConfigurationError with every fault found.
    """
    if path is None and os.environ.get(CONFIG_VARIABLE):
        path = Path(os.environ[CONFIG_VARIABLE])
    from_file = _read(path) if path is not None else {}

    class _Layered(Configuration):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            file = InitSettingsSource(settings_cls, init_kwargs=from_file)
            return (init_settings, env_settings, file)

    try:
        return _Layered(**flags)
    except ValidationError as error:
        raise ConfigurationError([_describe(fault) for fault in error.errors()]) from error
    except ValueError as error:  # a variable that is not the JSON it has to be
        raise ConfigurationError([str(error)]) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{path}: is not TOML: {error}"]) from error


def _describe(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "configuration"
    message = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if fault["type"] == "extra_forbidden":
        return f"{where}: there is no such setting"
    given = fault["input"]
    shown = "" if isinstance(given, (dict, BaseModel)) else f" (it is {given!r})"
    return f"{where}: {message}{shown}"


def _check_host_port(address: str) -> None:
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{address!r} is not host:port with a port from 0 to 65535")
