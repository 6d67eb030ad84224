"""The objects of an API server, their resource versions, and their history."""

from __future__ import annotations

import asyncio
import copy
from typing import Any, NamedTuple

from support.kubernetes.selectors import matches

Object = dict[str, Any]
PLURALS = {"Pod": "pods", "EndpointSlice": "endpointslices"}


class GoneError(Exception):
    """The history that somebody asks for is compacted."""


class Scope(NamedTuple):
    """What a request is about."""

    plural: str
    namespace: str
    """Empty: all."""
    selector: str

    def has(self, item: Object | None) -> bool:
        """Whether an object is part of it."""
        if item is None:
            return False
        metadata = item["metadata"]
        return (
            PLURALS[item["kind"]] == self.plural
            and self.namespace in {"", metadata["namespace"]}
            and matches(self.selector, metadata.get("labels") or {})
        )


class _Change(NamedTuple):
    revision: int
    before: Object | None
    after: Object | None
    """With the new version; of an object that is deleted, its last state."""
    is_deletion: bool


class Cluster:
    """Objects that change while they are watched."""

    def __init__(self) -> None:
        self.revision = 100
        self._compacted = 0
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._history: list[_Change] = []
        self._snapshots: dict[int, dict[tuple[str, str, str], Object]] = {}
        self._changed = asyncio.Event()

    def apply(self, *items: Object) -> None:
        """Create objects, or change those that there are."""
        for item in items:
            self._record(copy.deepcopy(item), is_deletion=False)

    def delete(self, *items: Object) -> None:
        """Delete objects."""
        for item in items:
            self._record(copy.deepcopy(self._objects[_key(item)]), is_deletion=True)

    def touch(self) -> None:
        """Change something that nobody watches: the revision grows."""
        self.revision += 1

    def compact(self) -> None:
        """Forget the history: nobody goes on from an earlier revision than this one."""
        self._compacted = self.revision
        self._history.clear()
        self._snapshots.clear()

    def items(self, scope: Scope) -> list[Object]:
        """What there is now."""
        return [item for _key, item in sorted(self._objects.items()) if scope.has(item)]

    def page(self, scope: Scope, revision: int, start: int, limit: int) -> tuple[list[Object], int]:
        """Items of a list as of a revision, and how many come after them. Raises GoneError."""
        if revision == self.revision:
            self._snapshots[revision] = dict(self._objects)
        snapshot = self._snapshots.get(revision)
        if snapshot is None:
            raise GoneError
        items = [item for _key, item in sorted(snapshot.items()) if scope.has(item)]
        page = items[start : start + limit] if limit else items[start:]
        return page, len(items) - start - len(page)

    def events(self, scope: Scope, after: int) -> list[tuple[int, str, Object]]:
        """What happened after a revision: revision, type, object. Raises GoneError."""
        if after < self._compacted:
            raise GoneError
        found = []
        for change in self._history:
            if change.revision <= after:
                continue
            was = scope.has(change.before)
            is_part = scope.has(change.after) and not change.is_deletion
            if was or is_part:
                kind = "DELETED" if not is_part else "MODIFIED" if was else "ADDED"
                assert change.after is not None
                found.append((change.revision, kind, change.after))
        return found

    @property
    def next_change(self) -> asyncio.Event:
        """Is set at the next change."""
        return self._changed

    def _record(self, item: Object, *, is_deletion: bool) -> None:
        self.revision += 1
        key = _key(item)
        before = self._objects.pop(key, None)
        item["metadata"]["resourceVersion"] = str(self.revision)
        if not is_deletion:
            self._objects[key] = item
        self._history.append(_Change(self.revision, before, item, is_deletion))
        self._changed.set()
        self._changed = asyncio.Event()


def _key(item: Object) -> tuple[str, str, str]:
    metadata = item["metadata"]
    return (item["kind"], metadata["namespace"], metadata["name"])
