"""Pods that register themselves, or that somebody registers, at the administration."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator
from typing_extensions import override

from service.config import pod_url
from service.discovery.pods import DiscoveredPod, Discovery
from store import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_LOOK_SECONDS = 1.0  # what other replicas have registered is known after so long
_KEPT_SECONDS = 60.0  # after the time that a pod was registered for

_log = structlog.get_logger("kvatlas.discovery")


class TooManyPodsError(Exception):
    """As many pods as are allowed are registered."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} pods are registered: no more are allowed (events.pods)")


class Registry(Protocol):
    """Where registrations are kept. Methods raise StoreError."""

    async def put(self, pod: str, entry: bytes) -> None:
        """Register a pod, in place of what was registered under its name."""
        ...

    async def remove(self, pod: str) -> bool:
        """Unregister a pod; returns whether it was registered."""
        ...

    async def count(self) -> int:
        """How many pods are registered."""
        ...

    async def read(self) -> dict[str, bytes]:
        """All registered pods."""
        ...


class MemoryRegistry(Registry):
    """Registrations of this process alone."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}

    @override
    async def put(self, pod: str, entry: bytes) -> None:
        self._entries[pod] = entry

    @override
    async def remove(self, pod: str) -> bool:
        return self._entries.pop(pod, None) is not None

    @override
    async def count(self) -> int:
        return len(self._entries)

    @override
    async def read(self) -> dict[str, bytes]:
        return dict(self._entries)


_Text = Annotated[str, Field(max_length=512)]


class _StoredPod(BaseModel):
    """As it is in the store, to which somebody else may have written."""

    model_config = ConfigDict(extra="ignore")

    url: _Text
    is_ready: StrictBool
    model: _Text
    roles: Annotated[frozenset[_Text], Field(max_length=16)]
    node: _Text
    name: _Text
    rank: Annotated[int, Field(ge=0)] | None = None

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        return pod_url(url)


class _Stored(BaseModel):
    pod: _StoredPod
    until: float | None


class _Registration(NamedTuple):
    pod: DiscoveredPod
    until: float | None
    """Seconds since 1970; None: until it is unregistered."""

    def pack(self) -> bytes:
        values = asdict(self.pod) | {"roles": sorted(self.pod.roles)}
        return json.dumps({"pod": values, "until": self.until}).encode()

    @classmethod
    def unpack(cls, entry: bytes) -> _Registration:
        """Raises ValueError. What a newer version has added is left out."""
        try:
            stored = _Stored.model_validate_json(entry)
        except RecursionError:
            raise ValueError("the entry is nested too deeply") from None
        values = stored.pod.model_dump() | {"roles": stored.pod.roles}
        return cls(DiscoveredPod(**values), stored.until)


class RegisteredPods(Discovery):
    """Tells of pods until they are unregistered, or for the time that they were registered for.

    Args:
        registry: where registrations are kept.
        most: how many there may be.
    """

    def __init__(self, registry: Registry, most: int) -> None:
        self._registry = registry
        self._most = most
        self._changed = asyncio.Event()
        self._failure = ""

    @property
    @override
    def name(self) -> str:
        return "registered"

    async def register(self, pod: DiscoveredPod, seconds: float | None) -> None:
        """Remember a pod, in place of what was registered for its address.

        seconds: for how long; None: until it is unregistered.

        Raises TooManyPodsError, StoreError.
        """
        if await self._registry.count() >= self._most:
            known = await self._registry.read()
            if pod.address not in known:
                raise TooManyPodsError(self._most)
        until = None if seconds is None else time.time() + seconds
        await self._registry.put(pod.address, _Registration(pod, until).pack())
        self._changed.set()

    async def unregister(self, address: str) -> bool:
        """Forget a pod; returns whether it was registered. Raises StoreError."""
        was_registered = await self._registry.remove(address)
        self._changed.set()
        return was_registered

    @override
    async def run(self, found: Callable[[Collection[DiscoveredPod]], None]) -> None:
        told: list[DiscoveredPod] | None = None
        while True:
            self._changed.clear()
            try:
                pods = await self._current()
            except StoreError as error:
                if not self._failure:
                    _log.warning("registrations_not_read", detail=str(error))
                self._failure = str(error)
            else:
                self._failure = ""
                if pods != told:
                    told = pods
                    found(pods)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _LOOK_SECONDS)

    async def _current(self) -> list[DiscoveredPod]:
        """The pods that are registered now. Raises StoreError.

        Others are removed, but not at once: a renewal that is late would be removed with them.
        """
        pods = []
        for address, entry in sorted((await self._registry.read()).items()):
            try:
                pod, until = _Registration.unpack(entry)
                if pod.address != address:
                    raise ValueError("another pod is registered under this name")
            except ValueError:  # pydantic's errors are
                _log.warning("registration_malformed", pod=address)
                until = 0.0
            if until is None or until > time.time():
                pods.append(pod)
            elif until < time.time() - _KEPT_SECONDS:
                await self._registry.remove(address)
        return pods
