"""The section about clients: how they reach a running service.

They read it with `service.config.layers.client`, which does not need pydantic.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic needs it

from pydantic import Field

from service.config.section import Section


class ClientSection(Section):
    """The service that `kvatlas score`, `pods` and others call, and what they show it."""

    server: str = Field("", description="host:port or unix:/path; empty: as grpc.listen says")
    admin: str = Field("", description="its administration; empty: as admin.listen says")
    metrics: str = Field("", description="its metrics; empty: as metrics.listen says")
    tls: bool = Field(default=False, description="TLS, also without the files below")
    ca_file: Path | None = Field(
        None, description="authorities that the service is known by; default: public ones"
    )
    certificate_file: Path | None = Field(None, description="certificate of this client")
    key_file: Path | None = Field(None, description="key of this client")
    token_file: Path | None = Field(None, description="the first token in it is sent")
    server_name: str = Field("", description="name in the certificate, if not that of the address")
