"""TLS of a listener: each handshake uses the certificates that the files contain by then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from service.listening.watched import WatchedFiles

if TYPE_CHECKING:
    from service.config import Certificates, ListenerSection


def server_credentials(name: str, section: ListenerSection) -> grpc.ServerCredentials | None:
    """The credentials of a listener; None if it does not speak TLS. Raises OSError, ValueError."""
    files = (section.certificate_file, section.key_file, section.client_ca_file)
    if section.certificate_file is None:
        return None

    def read() -> grpc.ServerCertificateConfiguration:
        certificates = section.read_certificates()
        assert certificates is not None  # noqa: S101 - the section is frozen
        return _configuration(certificates)

    watched = WatchedFiles(
        f"{name}.certificate_file", [file for file in files if file is not None], read, 1.0
    )
    return grpc.dynamic_ssl_server_credentials(
        watched.content,
        # None: as before, and nothing is parsed again
        lambda: watched.content if watched.has_changed() else None,  # type: ignore[arg-type, return-value]
        require_client_authentication=section.client_ca_file is not None,
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.chain)], certificates.client_authorities
    )
