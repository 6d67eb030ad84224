"""The sections about events: where they come from, and what is done with them."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ByteSize, Field, field_validator, model_validator

from kvevents import Curve, ExtraStrings, FleetLimits, FrameLimits, SocketLimits
from service.config.addresses import check_host_port
from service.config.section import Section

_DECODED_BYTES_PER_BYTE = 8  # of token ids, nearly all of a frame


class EventsSection(Section):
    """When a worker's events are doubted, and what happens then."""

    policy: Literal["keep", "forget"] = Field(
        "keep", description="blocks that may be gone: keep them, marked, or forget them"
    )
    poll_seconds: float = Field(
        10.0,
        ge=0.05,
        le=86_400,
        description="how often replay sockets are asked for frames that were missed",
    )
    replay_timeout_seconds: float = Field(
        2.0, gt=0, le=600, description="how long a replay socket may take to send the next frame"
    )
    concurrent_replays: int = Field(
        8, ge=1, le=1000, description="replays in progress at the same time, two for each host"
    )
    stale_seconds: float = Field(
        60.0, ge=0, description="silence after which a pod is stale; 0: never"
    )
    departed_seconds: float = Field(
        0.0, ge=0, description="silence after which a pod is forgotten; 0: never"
    )
    queue_messages: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="messages of one source that may wait to be processed",
    )
    queue_bytes: ByteSize = Field(
        ByteSize(64 * 1024**2),
        ge=64 * 1024,
        validate_default=True,
        description="what these may occupy; further ones wait at their publishers",
    )
    frame_bytes: ByteSize = Field(
        ByteSize(4 * 1024**2),
        ge=1024,
        le=2**30,
        validate_default=True,
        description="size of a frame; beyond it the frame is not applied, beyond twice that size "
        "its connection is closed",
    )
    frame_events: int = Field(
        16_384, ge=1, le=2**31 - 1, description="events of a frame; one with more is not applied"
    )
    frame_hashes: int = Field(
        131_072, ge=1, le=2**31 - 1, description="engine hashes of a frame, likewise"
    )
    connections: int = Field(
        4096, ge=1, le=1_000_000, description="connections to a bound endpoint"
    )
    connection_workers: int = Field(
        1024, ge=1, le=1_000_000, description="ranks of pods that publish through one connection"
    )
    pods: int = Field(4096, ge=1, le=1_000_000, description="pods that may join")
    models: int = Field(1024, ge=1, le=1_000_000, description="models that these may serve")
    ranks: int = Field(1024, ge=1, le=2**31 - 1, description="ranks of a pod")
    waiting_limit: ByteSize = Field(
        ByteSize(256 * 1024**2),
        ge=64 * 1024,
        validate_default=True,
        description="memory for frames that wait for replays and blocks that wait for parents",
    )

    @property
    def frame_limits(self) -> FrameLimits:
        """How much one frame may contain."""
        return FrameLimits(
            self.frame_bytes,
            self.frame_events,
            self.frame_hashes,
            _DECODED_BYTES_PER_BYTE * self.frame_bytes,
        )

    @property
    def fleet_limits(self) -> FleetLimits:
        """How many workers may join."""
        return FleetLimits(self.pods, self.models, self.ranks, self.connection_workers)

    @property
    def socket_limits(self) -> SocketLimits:
        """What a source's socket may take."""
        return SocketLimits(
            self.queue_messages, self.queue_bytes, 2 * self.frame_bytes, self.connections
        )


class SourceSection(Section):
    """A ZMQ endpoint that events come from."""

    endpoint: str = Field(description="such as tcp://10.0.0.1:5557, or tcp://*:5557 to bind")
    bind: bool = Field(default=False, description="bind it, and let pods connect")
    topic: str = Field("", description="prefix of the topics to subscribe to; empty: all")
    pod: str = Field("", description="pod behind the endpoint; empty: as the topic says")
    model: str = Field("", description="model that the pod serves; empty: as the topic says")
    rank: int | None = Field(
        None,
        ge=0,
        le=2**31 - 1,
        description="data-parallel rank; overrides the rank in the payloads",
    )
    extra_strings: ExtraStrings = Field(
        ExtraStrings.AUTO,
        description="what plain strings in extra_keys are: auto, salt, image or none",
    )
    replay: str = Field(
        "",
        description="replay socket; {host} stands for the pod's, the rank is added to the port",
    )
    allowed_pods: tuple[str, ...] = Field(
        ("*",), description="patterns of the pods whose events are applied"
    )
    allowed_models: tuple[str, ...] = Field(
        ("*",), description="patterns of the models that these may serve"
    )
    allowed_peers: tuple[str, ...] = Field(
        (), description="addresses and networks that may connect to a bound endpoint; empty: all"
    )
    curve_key_file: Path | None = Field(
        None, description="secret CURVE key of kvatlas; without it connections are not encrypted"
    )
    curve_publishers: Path | None = Field(
        None,
        description="bound: directory with the public keys of those who may connect; else the "
        "publisher's public key",
    )
    replay_hosts: tuple[str, ...] = Field(
        (),
        description="patterns of hosts that {host} may stand for because a pod's name says so; "
        "otherwise it stands for the address that the pod connects from",
    )

    rank_ports: bool = Field(
        default=False,
        description="each rank is a pod of its own, at the pod's port plus the rank",
    )

    @field_validator("replay")
    @classmethod
    def _replay(cls, replay: str) -> str:
        scheme, separator, rest = replay.partition("://")
        if not replay:
            return replay
        if not separator or scheme not in {"tcp", "ipc", "inproc"} or not rest or "*" in rest:
            raise ValueError(f"cannot connect to the replay socket {replay!r}")
        if scheme == "tcp" or "{host}" in rest:
            check_host_port(rest)
        return replay

    @field_validator("allowed_peers")
    @classmethod
    def _networks(cls, peers: tuple[str, ...]) -> tuple[str, ...]:
        for peer in peers:
            ip_network(peer)
        return peers

    @model_validator(mode="after")
    def _access(self) -> Self:
        if self.allowed_peers and not (self.bind and self.endpoint.startswith("tcp:")):
            raise ValueError("allowed_peers is for endpoints that are bound, with tcp://")
        if (self.curve_key_file is None) != (self.curve_publishers is None):
            raise ValueError("curve_key_file and curve_publishers need each other")
        if self.curve_key_file is not None and not self.curve_key_file.is_file():
            raise ValueError(f"curve_key_file: there is no file {self.curve_key_file}")
        if self.curve_publishers is not None:
            is_right = Path.is_dir if self.bind else Path.is_file
            if not is_right(self.curve_publishers):
                kind = "directory" if self.bind else "file"
                raise ValueError(f"curve_publishers: there is no {kind} {self.curve_publishers}")
        return self

    def source_values(self) -> dict[str, Any]:
        """The section as `kvevents.Source` takes it."""
        values = self.model_dump(exclude={"curve_key_file", "curve_publishers"})
        if self.curve_key_file is not None and self.curve_publishers is not None:
            values["curve"] = Curve(self.curve_key_file, self.curve_publishers)
        return values

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
                "many pods can connect to a bound endpoint: write {host} in replay for their hosts"
            )
        if self.bind and self.pod:
            raise ValueError("many pods can connect to a bound endpoint: leave pod empty")
        return self
