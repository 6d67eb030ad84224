"""A cluster, and how the file that kubectl uses describes it."""

from __future__ import annotations

import base64
import binascii
import ssl
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.discovery.pods import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Iterator

_INSTEAD = (
    "run `kubectl proxy` and set discovery.kubernetes.api_server = http://127.0.0.1:8001 instead"
)


class AccessError(DiscoveryError):
    """There is no way to reach an API server; says what to set."""


@dataclass(frozen=True)
class Cluster:
    """An API server and what it needs to know of kvatlas."""

    url: str
    token: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None
    """None, as `authorities`: those of the operating system."""
    authorities: str = ""
    """PEM, instead of a file."""
    certificate_file: Path | None = None
    key_file: Path | None = None
    certificate: bytes = b""
    """PEM of the certificate and its key, instead of files."""
    is_verified: bool = True
    namespace: str = ""
    """Where to look unless something else is said."""

    def tls(self) -> ssl.SSLContext:
        """A new context with what the files contain now. Raises OSError or ValueError."""
        authorities = self.authorities
        if self.ca_file is not None:
            authorities = self.ca_file.read_text()
            if not authorities.strip():
                raise ValueError(f"{self.ca_file} is empty")
        try:
            context = ssl.create_default_context(cadata=authorities or None)
            if not self.is_verified:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            certificate = self.certificate
            if self.certificate_file is not None and self.key_file is not None:
                certificate = b"\n".join(
                    (self.certificate_file.read_bytes(), self.key_file.read_bytes())
                )
            if certificate:
                with _file_of(certificate) as file:
                    # A key with a password would be asked for on the terminal.
                    context.load_cert_chain(file, password="")
        except ssl.SSLError as error:
            raise ValueError(f"unusable certificates: {error.reason or error}") from error
        return context


@contextmanager
def _file_of(content: bytes) -> Iterator[Path]:
    """A file that only this user can read, for a library that reads nothing else."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def read_kubeconfig(path: Path) -> Cluster:
    """The cluster of the file's current context. Raises AccessError."""
    import yaml  # only here: a pod of the cluster has no such file

    try:
        content = yaml.safe_load(path.read_text())
        context = _named(content, "contexts", content["current-context"], "context")
        cluster = _named(content, "clusters", context["cluster"], "cluster")
        user = _named(content, "users", context["user"], "user") if context.get("user") else {}
        return _cluster(path.parent, cluster, user, context.get("namespace") or "default")
    except AccessError as error:
        raise AccessError(f"{path}: {error}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AccessError(f"{path}: cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise AccessError(f"{path}: is no kubeconfig: {error!r} is missing or wrong") from error


def _named(content: dict[str, Any], kind: str, name: str, inner: str) -> dict[str, Any]:
    for entry in content[kind] or ():
        if entry["name"] == name:
            found: dict[str, Any] = entry[inner] or {}
            return found
    raise AccessError(f"{kind} has no {name!r}")


def _cluster(
    folder: Path, cluster: dict[str, Any], user: dict[str, Any], namespace: str
) -> Cluster:
    for place, names in (
        (cluster, ("proxy-url", "tls-server-name")),
        (user, ("exec", "auth-provider", "username")),
    ):
        for name in names:
            if place.get(name):
                raise AccessError(f"kvatlas does not support {name}: {_INSTEAD}")
    certificate = _decoded(user, "client-certificate-data")
    token_file, token = _path(folder, user, "tokenFile"), user.get("token", "")
    return Cluster(
        str(cluster["server"]).rstrip("/"),
        token if token_file is None else "",
        token_file,
        _path(folder, cluster, "certificate-authority"),
        _decoded(cluster, "certificate-authority-data").decode(),
        _path(folder, user, "client-certificate"),
        _path(folder, user, "client-key"),
        certificate + b"\n" + _decoded(user, "client-key-data") if certificate else b"",
        not cluster.get("insecure-skip-tls-verify", False),
        namespace,
    )


def _path(folder: Path, place: dict[str, Any], name: str) -> Path | None:
    """The file, which is relative to the kubeconfig."""
    return folder / place[name] if place.get(name) else None


def _decoded(place: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(place.get(name) or "", validate=True)
    except binascii.Error as error:
        raise AccessError(f"{name} is not base64") from error
