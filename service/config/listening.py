"""The sections about gRPC: where the service listens, for whom, and when it lets go."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic needs it
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from service.config.addresses import check_host_port, is_local
from service.config.credentials import Certificates, read_certificates, read_tokens
from service.config.section import Section


class ListenerSection(Section):
    """Addresses, and the credentials that are needed there."""

    listen: tuple[str, ...] = ()
    certificate_file: Path | None = Field(None, description="PEM; with it, TLS is spoken")
    key_file: Path | None = Field(None, description="its key, without a password")
    client_ca_file: Path | None = Field(
        None, description="clients need a certificate of one of these authorities"
    )
    token_file: Path | None = Field(
        None, description="calls need one of these bearer tokens, one a line"
    )
    reflection: bool = Field(default=True, description="describe the services to grpcurl")

    @field_validator("listen")
    @classmethod
    def _addresses(cls, listen: tuple[str, ...]) -> tuple[str, ...]:
        for address in listen:
            if not address.startswith("unix:"):
                check_host_port(address)
        return listen

    @field_validator("token_file")
    @classmethod
    def _tokens(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                read_tokens(path)
            except OSError as error:
                raise ValueError(f"cannot be read: {error.strerror}") from error
        return path

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file need each other")
        if self.client_ca_file is not None and self.certificate_file is None:
            raise ValueError("client_ca_file needs certificate_file and key_file")
        try:
            self.read_certificates()
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error
        return self

    def read_certificates(self) -> Certificates | None:
        """Read the certificate files; None without any. Raises OSError, ValueError."""
        if self.certificate_file is None or self.key_file is None:
            return None
        return read_certificates(self.certificate_file, self.key_file, self.client_ca_file)

    @property
    def knows_its_clients(self) -> bool:
        """Whether a client must show a token or a certificate."""
        return self.token_file is not None or self.client_ca_file is not None

    @property
    def is_local(self) -> bool:
        """Whether only clients on this host can connect."""
        return all(map(is_local, self.listen))

    @property
    def is_restricted(self) -> bool:
        """Whether strangers are kept out: clients are on this host, or show who they are."""
        return self.is_local or self.knows_its_clients


class GrpcSection(ListenerSection):
    """Where scores and token ids are asked for, and what holds for all connections."""

    listen: tuple[str, ...] = Field(
        ("0.0.0.0:50051",),
        description="addresses: host:port (port 0: any free port) or unix:/path",
    )
    transport: Literal["http2", "grpcio"] = Field(
        "http2",
        description="http2: in the service's event loop; grpcio: gRPC's core, at twice the CPU",
    )
    lame_duck_seconds: float = Field(
        3.0, ge=0, le=3600, description="after SIGTERM, how long to answer while not ready"
    )
    drain_seconds: float = Field(
        10.0, ge=0, le=3600, description="at shutdown, how long calls in progress may take"
    )
    connections: int = Field(
        10_000, ge=1, le=1_000_000, description="of one address; further ones are closed"
    )
    calls_per_connection: int = Field(
        1000, ge=1, le=2**31 - 1, description="in progress; clients keep further ones waiting"
    )
    handshake_seconds: float = Field(
        10.0, gt=0, le=3600, description="until TLS and HTTP/2 are agreed on"
    )
    ping_seconds: float = Field(
        5.0, gt=0, le=3600, description="how often a client may send keepalive pings"
    )
    idle_seconds: float = Field(
        600.0, ge=0, le=86_400, description="a connection without calls is closed; 0: never"
    )
    connection_age_seconds: float = Field(
        1800.0, ge=0, le=86_400, description="then its client is told to reconnect; 0: never"
    )

    @field_validator("listen")
    @classmethod
    def _somewhere(cls, listen: tuple[str, ...]) -> tuple[str, ...]:
        if not listen:
            raise ValueError("needs at least one address")
        return listen


class AdminSection(ListenerSection):
    """Where operators list, forget and resync pods, and record frames."""

    listen: tuple[str, ...] = Field(
        ("127.0.0.1:50052",), description="as grpc.listen; empty: no administration"
    )

    @property
    def may_move(self) -> bool:
        """Whether another port will do, as nobody has chosen this one."""
        return "listen" not in self.model_fields_set
