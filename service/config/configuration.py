"""All sections together, and what they must agree on."""

from __future__ import annotations

import os
from itertools import combinations
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from kvevents import EngineSettings
from service.config.addresses import collide
from service.config.client import ClientSection
from service.config.discovery import DiscoverySection
from service.config.events import EventsSection, SourceSection
from service.config.layers.environment import PREFIX, SEPARATOR, unread_variables
from service.config.layers.faults import ConfigurationError
from service.config.layers.loading import Flag, Loaded, load_layers
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
    TracesSection,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = [
    "Configuration",
    "ConfigurationError",
    "ignored_variables",
    "load",
    "load_with_origins",
]


class Configuration(BaseSettings):
    """Every setting. The README has an example of each."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter=SEPARATOR,
    )

    grpc: GrpcSection = GrpcSection()
    admin: AdminSection = AdminSection()
    client: ClientSection = ClientSection()
    metrics: MetricsSection = MetricsSection()
    traces: TracesSection = TracesSection()
    log: LogSection = LogSection()
    index: IndexSection = IndexSection()
    events: EventsSection = EventsSection()
    snapshot: SnapshotSection = SnapshotSection()
    store: StoreSection = StoreSection()
    limits: LimitsSection = LimitsSection()
    routing: RoutingSection = RoutingSection()
    tokenization: TokenizationSection = TokenizationSection()
    discovery: DiscoverySection = DiscoverySection()
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="that answer at the same addresses, with one index that they share through the "
        "store; each takes up to one core",
    )
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
        faults += [*self._process_faults(), *self._collisions()]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _process_faults(self) -> Iterator[str]:
        """What several processes cannot have."""
        if self.processes == 1:
            return
        if self.grpc.transport == "grpcio":
            yield 'processes: several of them need grpc.transport = "http2"'
        if self.snapshot.path is not None and not self.store.url:
            yield "snapshot.path cannot be combined with processes: they share a store"
        if (
            self.metrics.listen
            and int(self.metrics.listen_of(self.processes - 1).rpartition(":")[2]) > 65_535
        ):
            yield "metrics.listen: each process needs a port of its own, counted from this one"

    def _collisions(self) -> list[str]:
        """Two listeners that cannot have their addresses both."""
        listeners = [
            *(("grpc.listen", address) for address in self.grpc.listen),
            *(
                ("admin.listen", address)
                for address in self.admin.listen
                if not self.admin.may_move
            ),
            *(
                ("metrics.listen", self.metrics.listen_of(process))
                for process in range(self.processes)
                if self.metrics.listen
            ),
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


def load(path: Path | None, values: Mapping[str, Any]) -> Configuration:
    """The configuration from a TOML file and the environment, and values that override both.

    Args:
        path: the file; None for the one that KVATLAS_CONFIG names, if it is set.
        values: settings nested as in the file.

    Raises:
        ConfigurationError: with every fault.
    """
    return load_layers(Configuration, path, values=values).settings


def load_with_origins(path: Path | None, flags: Iterable[Flag]) -> Loaded[Configuration]:
    """The configuration from a TOML file, the environment and flags of the command line.

    Raises:
        ConfigurationError: with every fault.
    """
    return load_layers(Configuration, path, flags)


def ignored_variables() -> list[str]:
    """What is set in the environment in vain, one line for each variable."""
    fields = Configuration.model_fields.items()
    nested = {name: not isinstance(field.default, (str, tuple)) for name, field in fields}
    return [
        f"{name}: no setting has this name, so nothing reads this variable"
        for name in unread_variables(os.environ, nested)
    ]
