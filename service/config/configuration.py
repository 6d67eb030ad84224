"""Loads the configuration: flags override the environment, which overrides one file.

The environment is read here and nowhere else.
"""

from __future__ import annotations

import os
import tomllib
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from kvevents import EngineSettings
from service.config.addresses import collide
from service.config.client import ClientConfiguration, ClientSection
from service.config.environment import FILE, PREFIX, unread_variables
from service.config.events import EventsSection, SourceSection
from service.config.limits import LimitsSection
from service.config.listening import AdminSection, GrpcSection
from service.config.models import ModelSection, TokenizationSection
from service.config.sections import (
    IndexSection,
    LogSection,
    MetricsSection,
    RoutingSection,
    SnapshotSection,
    StoreSection,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_Settings = TypeVar("_Settings", bound=BaseSettings)


class ConfigurationError(Exception):
    """A configuration that cannot be used.

    Attributes:
        faults: everything that is wrong with it, one line for each fault.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Configuration(BaseSettings):
    """Every setting. The README has an example of each."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
    )

    grpc: GrpcSection = GrpcSection()
    admin: AdminSection = AdminSection()
    client: ClientSection = ClientSection()
    metrics: MetricsSection = MetricsSection()
    log: LogSection = LogSection()
    index: IndexSection = IndexSection()
    events: EventsSection = EventsSection()
    snapshot: SnapshotSection = SnapshotSection()
    store: StoreSection = StoreSection()
    limits: LimitsSection = LimitsSection()
    routing: RoutingSection = RoutingSection()
    tokenization: TokenizationSection = TokenizationSection()
    default_model: str = Field("", description="model of pods whose topic does not name one")
    pod_names: dict[str, str] = Field(
        {}, description="name in topics -> name that clients use, ip:port"
    )
    models: tuple[ModelSection, ...] = ()
    sources: tuple[SourceSection, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [model.name for model in self.models]
        endpoints = [s.endpoint for s in self.sources if not s.endpoint.endswith(":0")]
        faults = [
            f"{kind} {value!r} is configured twice"
            for kind, values in (("model", names), ("endpoint", endpoints))
            for value in sorted({value for value in values if values.count(value) > 1})
        ]
        if self.store.url and self.snapshot.path is not None:
            faults.append(
                "snapshot.path cannot be combined with store.url: the store keeps a shared index"
            )
        faults += self._collisions()
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _collisions(self) -> list[str]:
        """Two listeners that cannot have their addresses both."""
        listeners = [
            *(("grpc.listen", address) for address in self.grpc.listen),
            *(
                ("admin.listen", address)
                for address in self.admin.listen
                if not self.admin.may_move
            ),
            *(("metrics.listen", address) for address in [self.metrics.listen] if address),
            *(
                ("a source's endpoint", source.endpoint.removeprefix("tcp://"))
                for source in self.sources
                if source.bind and source.endpoint.startswith("tcp://")
            ),
        ]
        return [
            f"{one} and {other} collide: {address} and {taken}"
            for (one, address), (other, taken) in combinations(listeners, 2)
            if collide(address, taken)
        ]

    def engine_settings_of(self, model: str) -> EngineSettings:
        """The configured settings of the model's engines; empty for a model not configured."""
        for configured in self.models:
            if configured.name == model:
                return configured.engine_settings
        return EngineSettings()

    def block_size_of(self, model: str) -> int:
        """Number of tokens of the model's blocks."""
        for configured in self.models:
            if configured.name == model and configured.block_size is not None:
                return configured.block_size
        return self.index.block_size


def load(path: Path | None, flags: Mapping[str, Any]) -> Configuration:
    """The configuration from a TOML file, the environment and flags.

    Args:
        path: the file; None for the one that KVATLAS_CONFIG names, if it is set.
        flags: settings nested as in the file.

    Raises:
        ConfigurationError: with every fault.
    """
    return _layered(Configuration, path, flags)


def ignored_variables() -> list[str]:
    """What is set in the environment in vain, one line for each variable."""
    fields = Configuration.model_fields.items()
    nested = {name: not isinstance(field.default, (str, tuple)) for name, field in fields}
    return [
        f"{name}: no setting has this name, so nothing reads this variable"
        for name in unread_variables(os.environ, nested)
    ]


def load_client(path: Path | None, flags: Mapping[str, Any]) -> ClientConfiguration:
    """What client commands read of the same layers. Raises ConfigurationError."""
    return _layered(ClientConfiguration, path, flags)


def _layered(kind: type[_Settings], path: Path | None, flags: Mapping[str, Any]) -> _Settings:
    if path is None and os.environ.get(FILE):
        path = Path(os.environ[FILE])
    from_file = _read(path) if path is not None else {}

    class _Layered(kind):  # type: ignore[valid-type, misc]
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
        settings: _Settings = _Layered(**flags)
    except ValidationError as error:
        raise ConfigurationError([_describe(fault) for fault in error.errors()]) from error
    except ValueError as error:  # an environment variable that is not valid JSON
        raise ConfigurationError([str(error)]) from error
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{path}: not valid TOML: {error}"]) from error


def _describe(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "configuration"
    message = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if fault["type"] == "extra_forbidden":
        return f"{where}: unknown setting"
    given = fault["input"]
    shown = "" if isinstance(given, (dict, BaseModel)) else f" (it is {given!r})"
    return f"{where}: {message}{shown}"
