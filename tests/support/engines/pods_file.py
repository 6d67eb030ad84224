"""A file that lists pods, for `discovery.file`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class PodsFile:
    """A file that lists pods."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *pods: str | dict[str, Any]) -> None:
        """Put another file in its place, as Kubernetes does with a ConfigMap."""
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps({"pods": list(pods)}))
        beside.replace(self.path)
