"""The changes that wait for one watcher, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from indexer import Worker
    from service.watching.states import RankChange, RankState

_MOST_WAITING = 1024  # changes that wait for a watcher before any is left out
_MOST_RANKS = 16_384  # of which a change waits after that


class Watcher:
    """Keeps changes until they are read: all of them or, for a slow reader, each rank's newest.

    Args:
        model: whose pods count; empty: of all models.
        pods: which of them count; empty: all.
    """

    def __init__(self, model: str, pods: Collection[str]) -> None:
        self._model = model
        self._pods = frozenset(pods)
        self._waiting: deque[RankChange] = deque()
        self._newest: dict[Worker, RankChange] = {}
        self.woken = asyncio.Event()

    def accepts(self, state: RankState) -> bool:
        """Whether a rank counts."""
        return self._model in ("", state.model) and (
            not self._pods or state.worker.pod in self._pods
        )

    def put(self, change: RankChange) -> None:
        """Keep a change until it is read."""
        self.woken.set()
        if not self._newest and len(self._waiting) < _MOST_WAITING:
            self._waiting.append(change)
            return
        state = change.state
        if state is None:
            return
        former = self._newest.pop(state.worker, None)
        skipped = 0 if former is None else former.skipped + 1
        self._newest[state.worker] = change._replace(skipped=skipped)
        if len(self._newest) > _MOST_RANKS:  # of ranks that come and go without end
            del self._newest[next(iter(self._newest))]

    def take(self) -> RankChange | None:
        """Return the next change, and forget it; None if none waits."""
        if not self._waiting:
            self._waiting.extend(self._newest.values())
            self._newest.clear()
        if self._waiting:
            return self._waiting.popleft()
        self.woken.clear()
        return None
