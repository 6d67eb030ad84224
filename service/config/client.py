"""How the client commands reach a running service; no other setting matters to them."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic needs it

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.config.addresses import to_connect
from service.config.listening import AdminSection, GrpcSection
from service.config.section import Section


class ClientSection(Section):
    """The service that `kvatlas score`, `pods` and others call, and what they show it."""

    server: str = Field("", description="host:port or unix:/path; empty: as grpc.listen says")
    admin: str = Field("", description="its administration; empty: as admin.listen says")
    tls: bool = Field(default=False, description="TLS, also without the files below")
    ca_file: Path | None = Field(
        None, description="authorities that the service is known by; default: public ones"
    )
    certificate_file: Path | None = Field(None, description="certificate of this client")
    key_file: Path | None = Field(None, description="key of this client")
    token_file: Path | None = Field(None, description="the first token in it is sent")
    server_name: str = Field("", description="name in the certificate, if not that of the address")

    @property
    def uses_tls(self) -> bool:
        """Whether the client speaks TLS."""
        return self.tls or self.ca_file is not None or self.certificate_file is not None


class _Listens(BaseModel):
    """What a client reads of a listener's section."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    listen: tuple[str, ...] = ()


class ClientConfiguration(BaseSettings):
    """The settings of clients, in the same file and environment as those of the service."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_prefix="KVATLAS_", env_nested_delimiter="__"
    )

    client: ClientSection = ClientSection()
    grpc: _Listens = _Listens(listen=GrpcSection().listen)
    admin: _Listens = _Listens(listen=AdminSection().listen)

    @property
    def server(self) -> str:
        """Where scores are asked for."""
        return self.client.server or to_connect(self.grpc.listen[0])

    @property
    def administration(self) -> str:
        """Where the fleet is administered."""
        return self.client.admin or to_connect(self.admin.listen[0])
