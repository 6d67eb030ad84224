"""Where the API server is, and who kvatlas is to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from service.config.credentials import read_tokens
from service.config.discovery import is_dns_label
from service.discovery.kubernetes.kubeconfig import AccessError, Cluster, read_kubeconfig
from service.listening.watched import WatchedFiles

if TYPE_CHECKING:
    import ssl

    from service.config.discovery import KubernetesSection

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a pod's token, the cluster's authorities and the pod's namespace."""
_SETTING = "discovery.kubernetes"


class Access:
    """How to reach one API server. Files are read again when they change: tokens are rotated.

    Attributes:
        url: of the API server, without a slash at its end.
        namespaces: to look into; `*` for all.
    """

    def __init__(self, cluster: Cluster, namespaces: tuple[str, ...]) -> None:
        if not cluster.url.startswith(("https://", "http://")):
            raise AccessError(f"{_SETTING}: {cluster.url!r} is no URL of an API server")
        self.url = cluster.url
        self.namespaces = namespaces or (_own(cluster),)
        self._token = cluster.token
        self._token_file = None
        self._tls = None
        try:
            if cluster.token_file is not None:
                self._token_file = _watched_token(cluster.token_file)
            if cluster.url.startswith("https:"):
                self._tls = _watched_tls(cluster)
        except (OSError, ValueError) as error:
            raise AccessError(f"{_SETTING}: {error}") from error

    def headers(self) -> dict[str, str]:
        """Those that say who kvatlas is, as of now."""
        token = self._token
        if self._token_file is not None:
            token = self._token_file.content
        return {"Authorization": f"Bearer {token}"} if token else {}

    def tls(self) -> ssl.SSLContext | None:
        """How to connect; the same object until a file has changed. None: without TLS."""
        return None if self._tls is None else self._tls.content


def access_of(section: KubernetesSection, service_account: Path | None = None) -> Access:
    """How the section says to reach its cluster; if it does not: as a pod of the cluster does.

    Raises:
        AccessError: there is no way, with what to set.
    """
    if section.kubeconfig is not None:
        return Access(read_kubeconfig(section.kubeconfig), section.namespaces)
    service_account = service_account or SERVICE_ACCOUNT
    own = service_account / "namespace"
    namespace = own.read_text().strip() if own.is_file() else os.environ.get("POD_NAMESPACE", "")
    if section.api_server:
        cluster = Cluster(
            section.api_server,
            token_file=section.token_file,
            ca_file=section.ca_file,
            namespace=namespace,
        )
        return Access(cluster, section.namespaces)
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise AccessError(
            f"{_SETTING}: kvatlas does not run in a cluster (KUBERNETES_SERVICE_HOST is not set): "
            f"set {_SETTING}.kubeconfig, or {_SETTING}.api_server to that of `kubectl proxy`"
        )
    if not (service_account / "token").is_file():
        raise AccessError(
            f"{_SETTING}: there is no {service_account / 'token'}: give the pod a service account, "
            "and do not set automountServiceAccountToken: false"
        )
    cluster = Cluster(
        f"https://{f'[{host}]' if ':' in host else host}:{port}",
        token_file=service_account / "token",
        ca_file=service_account / "ca.crt",
        namespace=namespace,
    )
    return Access(cluster, section.namespaces)


def _own(cluster: Cluster) -> str:
    if not is_dns_label(cluster.namespace):
        raise AccessError(
            f"{_SETTING}.namespaces: kvatlas' own namespace is not known: set it, or the variable "
            "POD_NAMESPACE from the downward API"
        )
    return cluster.namespace


def _watched_token(file: Path) -> WatchedFiles[str]:
    def read() -> str:
        return read_tokens(file)[0].decode()

    return WatchedFiles(f"{_SETTING} token", [file], read, 0.0)


def _watched_tls(cluster: Cluster) -> WatchedFiles[ssl.SSLContext]:
    files = [
        file
        for file in (cluster.ca_file, cluster.certificate_file, cluster.key_file)
        if file is not None
    ]
    return WatchedFiles(f"{_SETTING} certificates", files, cluster.tls, 0.0)
