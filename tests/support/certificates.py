"""Certificates that tests make, with the `openssl` command."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_NEW = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj")


class Authority:
    """An authority of its own, whose certificates name localhost.

    Attributes:
        file: its certificate.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir()
        self.file = self._folder / "ca.crt"
        self._openssl(
            *(*_NEW, f"/CN={name}", "-x509", "-days", "2"),
            *("-keyout", "ca.key", "-out", "ca.crt"),
        )
        (self._folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")

    def issue(self, chain: Path, key: Path) -> None:
        """Write a new certificate and its key to these files, over what is there."""
        self._openssl(*_NEW, "/CN=localhost", "-keyout", str(key), "-out", "new.csr")
        self._openssl(
            *("x509", "-req", "-in", "new.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", "names", "-out", str(chain)),
        )

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True)
