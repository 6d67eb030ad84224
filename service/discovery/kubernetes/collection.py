"""A copy of one collection of the API server: its objects, and the pods that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.discovery.kubernetes.labels import Endpoint
    from service.discovery.kubernetes.status import Skipped
    from service.discovery.pods import DiscoveredPod

Key = tuple[str, str]
"""Namespace and name of an object."""


class ReadObject(NamedTuple):
    """What was read of an object of the API."""

    key: Key
    endpoints: tuple[Endpoint, ...]


class ObjectReader(Protocol):
    """Knows one kind of objects."""

    @property
    def kind(self) -> str:
        """Such as Pod."""
        ...

    @property
    def selector(self) -> str:
        """The labels of those that are wanted."""
        ...

    def path(self, namespace: str) -> str:
        """Of the collection below the API server's URL; of all namespaces if it is `*`."""
        ...

    def read(self, item: Mapping[str, Any], skipped: Skipped) -> ReadObject:
        """What an object says. Raises ValueError; parts that cannot be used are counted."""
        ...


def key_of(item: object) -> Key | None:
    """The object's key, even if nothing else of it can be read."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    if not isinstance(metadata, dict):
        return None
    namespace, name = metadata.get("namespace", ""), metadata.get("name")
    if not isinstance(name, str) or not isinstance(namespace, str):
        return None
    return (namespace, name)


class Collection:
    """The objects of one namespace, or of all, as far as they stand for pods.

    Args:
        reader: reads the objects.
        limit: pods, at most. Objects beyond it are left out.
        skipped: counts what is left out, by reason.

    Attributes:
        is_cut: whether objects were left out because of the limit.
    """

    def __init__(self, reader: ObjectReader, limit: int, skipped: Skipped) -> None:
        self.reader = reader
        self.is_cut = False
        self._limit = limit
        self._skipped = skipped
        self._objects: dict[Key, tuple[Endpoint, ...]] = {}
        self._size = 0

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        """All that were found."""
        for endpoints in self._objects.values():
            yield from endpoints

    @property
    def size(self) -> int:
        """How many were found."""
        return self._size

    @property
    def has_room(self) -> bool:
        """Whether another pod could be kept."""
        return self._size < self._limit

    def empty(self) -> Collection:
        """A collection of the same kind, with nothing in it."""
        return Collection(self.reader, self._limit, self._skipped)

    def put(self, item: Mapping[str, Any]) -> bool:
        """Take an object as it is now; returns whether that changes anything.

        One that cannot be read stands for no pods: as after a list, which could not read it either.
        """
        try:
            key, endpoints = self.reader.read(item, self._skipped)
        except ValueError as error:
            self._skipped.add("unreadable", "/".join(key_of(item) or ()), str(error))
            return self.remove(item)
        before = self._objects.get(key, ())
        size = self._size - len(before) + len(endpoints)
        if size > self._limit:
            self._skipped.add("limit", "/".join(key), f"more than {self._limit} pods")
            self.is_cut = True
            return self._remove(key)
        if not endpoints:
            return self._remove(key)
        self._objects[key] = endpoints
        self._size = size
        return endpoints != before

    def remove(self, item: object) -> bool:
        """Forget an object; returns whether that changes anything."""
        key = key_of(item)
        return key is not None and self._remove(key)

    def _remove(self, key: Key) -> bool:
        gone = self._objects.pop(key, ())
        self._size -= len(gone)
        return bool(gone)


def merged(endpoints: Iterable[Endpoint], limit: int) -> dict[str, DiscoveredPod]:
    """One pod an address, and one address a pod.

    An address is taken twice while a new pod has it and the object of the old one remains, or while
    an endpoint moves between slices: the pod that is ready is the one. A Pod that a service has
    under addresses of both families is taken by the older one.
    """
    pods: dict[str, DiscoveredPod] = {}
    found = list(endpoints)
    owners = {owner for _pod, owner, version in found if owner and version == 4}
    for pod, owner, version in found:
        if version == 6 and owner in owners:
            continue
        other = pods.get(pod.address)
        if other is None or (not other.is_ready, pod.name) > (not pod.is_ready, other.name):
            pods[pod.address] = pod
    if len(pods) > limit:
        return dict(sorted(pods.items())[:limit])
    return pods
