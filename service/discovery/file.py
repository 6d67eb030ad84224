"""Pods that a file lists, which is read again when it changes."""

from __future__ import annotations

import asyncio
import json
import tomllib
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from typing_extensions import override

from service.config import pod_url
from service.discovery.pods import DiscoveredPod, Discovery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

_LOOK_SECONDS = 1.0
_MOST_BYTES = 16 * 1024**2

_log = structlog.get_logger("kvatlas.discovery")


class FilePods(Discovery):
    """Reads a file again whenever it is another one, or has another time or size.

    The file has {"pods": [...]} as JSON, or [[pods]] as TOML if its name ends so; a pod is a URL,
    or has `url` and any of `model`, `roles`, `node`, `name`, `ready`. One that cannot be read tells
    nothing.

    Args:
        path: the file.
        seconds: between two looks at it.
    """

    def __init__(self, path: Path, seconds: float = _LOOK_SECONDS) -> None:
        self._path = path
        self._seconds = seconds
        self._failure = ""

    @property
    @override
    def name(self) -> str:
        return "file"

    @override
    async def run(self, found: Callable[[Collection[DiscoveredPod]], None]) -> None:
        seen: tuple[int, ...] = ()
        while True:
            try:
                status = self._path.stat()
                now = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)
                if now != seen:
                    found(await asyncio.to_thread(read_pods, self._path))
                    seen, self._failure = now, ""
            except (OSError, ValueError) as error:
                self._fail(str(error))
            await asyncio.sleep(self._seconds)

    def _fail(self, detail: str) -> None:
        if detail != self._failure:
            _log.warning("pods_file_refused", path=str(self._path), detail=detail)
        self._failure = detail


class _ListedPod(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str
    model: str = ""
    roles: frozenset[str] = frozenset()
    node: str = ""
    name: str = ""
    ready: bool = Field(default=True)

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        return pod_url(url)


class _PodList(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pods: list[_ListedPod]

    @field_validator("pods", mode="before")
    @classmethod
    def _pods(cls, pods: Any) -> Any:
        if not isinstance(pods, list):
            return pods
        return [{"url": pod} if isinstance(pod, str) else pod for pod in pods]


_PODS = TypeAdapter(_PodList)


def read_pods(path: Path) -> list[DiscoveredPod]:
    """The pods that a file lists. Raises OSError, ValueError."""
    if not path.is_file():
        raise ValueError("this is no file")  # reading a pipe would wait for its writer
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"the file has more than {_MOST_BYTES} bytes")
    text = content.decode()
    try:
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except RecursionError:
        raise ValueError("the file is nested too deeply") from None
    try:
        listed = _PODS.validate_python(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:8]
        )
        raise ValueError(faults) from None
    return [
        DiscoveredPod(pod.url, pod.ready, pod.model, pod.roles, pod.node, pod.name)
        for pod in listed.pods
    ]
