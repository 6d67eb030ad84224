"""Keeps a copy of one collection: lists it, watches it, goes on where a watch ended, backs off.

The copy changes only by a list that is complete and by events of a watch. Whatever fails in between
leaves it as it is.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from service.discovery.kubernetes.client import ApiClient, decoded
from service.discovery.kubernetes.failures import ApiFailure, Reason, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.discovery.kubernetes.client import Watch
    from service.discovery.kubernetes.collection import Collection
    from service.discovery.kubernetes.status import KubernetesStatus

_MAX_PAGES = 1000
_USUAL = {Reason.DISCONNECTED, Reason.GONE, Reason.SHORT_WATCH}
"""Connections end, and versions grow old, without anything being wrong."""
_PERSISTENT = 3  # failures without a word in between

_log = structlog.get_logger("kvatlas.discovery")


@dataclass(frozen=True)
class Pace:
    """How often an API server is asked."""

    watch_seconds: float = 300.0
    """How long a watch lasts, but for a jitter."""
    backoff_first: float = 0.5
    backoff_limit: float = 30.0
    healthy_seconds: float = 10.0
    """A watch that lasted for so long did not need the list before it in vain."""
    tell_seconds: float = 0.05
    """What changes so soon after a telling is told together: a telling names all pods."""
    page_objects: int = 100
    """Of a page of a list, halved while pages are too large. A Pod has about 10 kB, and nothing
    else is done while a page is decoded."""


class Backoff:
    """Pauses that grow, with a jitter, up to a limit."""

    def __init__(self, first: float, limit: float) -> None:
        self._first = self._next = first
        self._limit = limit

    def pause(self) -> float:
        """The next pause, in seconds."""
        pause, self._next = self._next, min(2 * self._next, self._limit)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311

    def reset(self) -> None:
        """All is well: the next pause is the first one."""
        self._next = self._first


class Reflector:
    """Owns the copy of one collection.

    Args:
        client: asks the API server; its own.
        namespace: whose objects; `*` for all.
        collection: the copy, empty.
        status: of all collections.
        pace: how often to ask.
        on_change: is called when pods may have changed; the first time when they are known.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        collection: Collection,
        status: KubernetesStatus,
        pace: Pace,
        on_change: Callable[[], None],
    ) -> None:
        self.collection = collection
        self._client = client
        self.namespace = namespace
        self._path = collection.reader.path(namespace)
        self._status = status
        self._own_status = status.collections[namespace]
        self._pace = pace
        self._on_change = on_change
        self._page_objects = pace.page_objects
        self._version = ""
        self._logged: Reason | None = None
        self._failures = 0
        self._retry = Backoff(pace.backoff_first, pace.backoff_limit)
        self._relist = Backoff(pace.backoff_first, pace.backoff_limit)

    async def run(self) -> None:
        """Keep the copy up to date. Ends only if cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except ApiFailure as failure:
                self._on_failure(failure)
                pause = max(self._retry.pause(), failure.retry_after)
                await asyncio.sleep(max(pause, self._relist.pause() if failure.is_stale else 0.0))

    async def _list(self) -> None:
        """Take all objects there are; those that are gone meanwhile are gone from the copy."""
        copy, token = self.collection.empty(), ""
        for _page in range(_MAX_PAGES):
            page = await self._client.get(self._path, self._list_parameters(token))
            version, token, items = self._page(page)
            for number, item in enumerate(items):
                copy.put(item if isinstance(item, dict) else {})
                if number % self._pace.page_objects == 0:  # a server may send more than it should
                    await asyncio.sleep(0)
            if not token:
                break
        else:
            raise ApiFailure(Reason.TOO_LARGE, f"a list of more than {_MAX_PAGES} pages")
        self.collection, self._version = copy, version
        self._status.lists += 1
        self._status.relists += self._own_status.is_listed
        self._status.last_list_at = time.time()
        if not self._own_status.is_listed:
            _log.info("kubernetes_listed", namespace=self.namespace, pods=copy.size)
        self._own_status.is_listed = True
        self._own_status.on_word()
        self._on_change()

    def _list_parameters(self, token: str) -> dict[str, str]:
        parameters = self._selector() | {"limit": str(self._page_objects)}
        return parameters | {"continue": token} if token else parameters

    def _selector(self) -> dict[str, str]:
        return {"labelSelector": self.collection.reader.selector}

    def _page(self, page: dict[str, Any]) -> tuple[str, str, list[Any]]:
        """Version, continue token and items. Nothing else is taken for a list, not even `{}`."""
        kind = f"{self.collection.reader.kind}List"
        metadata, items, version = page.get("metadata"), page.get("items", ""), _version(page)
        items = [] if items is None else items  # so Go writes a list that nobody has made
        if page.get("kind") != kind or not version or not isinstance(items, list):
            raise ApiFailure(Reason.MALFORMED, f"the answer is no {kind}")
        token = metadata.get("continue") if isinstance(metadata, dict) else None
        return version, token if isinstance(token, str) else "", items

    async def _watch(self) -> None:
        """Follow what changes, until the watch ends."""
        # Several replicas, which start together, do not all ask again at the same time.
        seconds = self._pace.watch_seconds * random.uniform(0.8, 1.0)  # noqa: S311
        parameters = self._selector() | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        started_at = time.monotonic()
        async with self._client.watch(self._path, parameters, seconds + 1) as watch:
            self._own_status.is_watched = True
            try:
                await self._follow(watch)
            finally:
                self._own_status.is_watched = False
                if time.monotonic() - started_at >= self._pace.healthy_seconds:
                    self._relist.reset()
                    self._on_success()
        if not self._version:  # there is room for objects that had none
            await asyncio.sleep(self._relist.pause())
        elif time.monotonic() - started_at < min(1.0, seconds / 2):
            raise ApiFailure(Reason.SHORT_WATCH, "the watch ended at once")
        else:
            self._own_status.on_word()
            self._on_success()

    async def _follow(self, watch: Watch) -> None:
        """Apply events until the watch ends, or the collection has to be listed anew."""
        while (lines := await watch.lines()) is not None:
            changes = False
            try:
                for line in lines:
                    changes |= self._apply(line)
                    self._on_success()
            finally:
                if changes:
                    self._on_change()
            if self.collection.is_cut and self.collection.has_room:
                self._version = ""
                return

    def _apply(self, line: bytes) -> bool:
        """Apply one event; returns whether it changes anything. Raises ApiFailure."""
        event = decoded(line)
        kind, item = event.get("type"), event.get("object")
        if not isinstance(kind, str) or not isinstance(item, dict):
            raise ApiFailure(Reason.MALFORMED, "no event of a watch", is_stale=True)
        if kind not in {"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"}:
            self._status.skipped.add("event", kind, "an unknown type of event")
            return False
        self._status.events[kind] += 1
        if kind == "ERROR":
            raise _failure_of(item)
        self._version = _version(item) or self._version
        self._own_status.on_word()
        if kind == "BOOKMARK":
            return False
        return self.collection.remove(item) if kind == "DELETED" else self.collection.put(item)

    def _on_success(self) -> None:
        """The API server does what it should."""
        self._failures = 0
        self._retry.reset()
        if self._logged is not None:
            _log.info("kubernetes_answers", namespace=self.namespace)
        self._logged = None

    def _on_failure(self, failure: ApiFailure) -> None:
        """Count a failure, and log it once. What happens now and then is logged if it persists."""
        self._status.failures[failure.reason] += 1
        self._failures += 1
        if failure.is_stale:
            self._version = ""
        if failure.reason is Reason.TOO_LARGE:
            self._page_objects = max(1, self._page_objects // 2)
        is_usual = failure.reason in _USUAL and self._failures < _PERSISTENT
        if self._logged != failure.reason and not is_usual:
            _log.warning(
                "kubernetes_fails",
                namespace=self.namespace,
                reason=failure.reason,
                detail=failure.detail,
                known=self._own_status.is_listed,
            )
            self._logged = failure.reason


def _version(item: dict[str, Any]) -> str:
    """The resource version of an object or a list; empty if it has none."""
    metadata = item.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""


def _failure_of(status: dict[str, Any]) -> ApiFailure:
    """What the Status object of an ERROR event means: after any of them the copy is listed anew."""
    code = status.get("code")
    reason = reason_of(code if isinstance(code, int) else 500)
    if status.get("reason") in {"Expired", "Gone"}:
        reason = Reason.GONE
    return ApiFailure(reason, str(status.get("message", ""))[:300], is_stale=True)
