"""The image that `make image` built, run without an engine: its files, as its user, read-only.

Only root may do that: it mounts file systems, for this process alone.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_NONE: Mapping[str, str] = MappingProxyType({})

# A mount namespace of its own, in which the image's files cannot be written and which have /dev and
# /proc. It ends with the process: each step is executed by the one before, under one process id.
_RUN = """
tree=$1 user=$2; shift 2
mount --bind "$tree" "$tree" && mount --rbind /dev "$tree/dev" && mount -t proc proc "$tree/proc" &&
    mount -o remount,bind,ro "$tree" && exec chroot --userspec="$user" "$tree" "$@"
"""


class BuiltImage:
    """The image in a directory that deploy/image/build made."""

    def __init__(self, directory: Path) -> None:
        self.tree = (directory / "tree").resolve(strict=True)
        image = json.loads((directory / "image.json").read_text())
        self.config: dict[str, Any] = image["Docker"]["config"]

    @property
    def site_packages(self) -> Path:
        """Where the service is installed."""
        (path,) = self.tree.glob("kvatlas/lib/python3.*/site-packages")
        return path

    def command(
        self, *words: str, environment: Mapping[str, str] = _NONE, volume: Path | None = None
    ) -> list[str]:
        """Return the command that runs the image with `words` after its entry point.

        The directory `volume` is mounted at HF_HOME.
        """
        variables = [*self.config["Env"], *(f"{k}={v}" for k, v in environment.items())]
        entry = ["env", "-i", *variables, *self.config["Entrypoint"], *words]
        script = _RUN
        if volume is not None:
            place = dict(variable.split("=", 1) for variable in variables)["HF_HOME"]
            mount = f'mount --bind "{volume}" "$tree{place}" && mount -o remount'
            script = script.replace("mount -o remount", mount)
        namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        return [*namespace, str(self.tree), self.config["User"], *entry]

    def run(
        self, *words: str, environment: Mapping[str, str] = _NONE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the image to its end."""
        command = self.command(*words, environment=environment)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
