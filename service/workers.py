"""What is known of each worker's stream, wherever its events are applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kvevents import Report, Standing, State
from store import name_of, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from indexer import CacheLayout, Worker, WorkerBlocks
    from kvevents import WorkerStream
    from store import Claim, Copy, Followed
    from store import Standing as Told

_REFRESH_SECONDS = 1.5  # bulletins are read every second


class Workers(Protocol):
    """Every worker heard of or expected."""

    def standing(self, worker: Worker, now: float) -> Standing:
        """How much to trust what is claimed of it, at `now` (`time.monotonic`)."""
        ...

    def report(self, worker: Worker, now: float) -> Report:
        """What an operator is told of it."""
        ...

    def blocks_by_tier(self, blocks: WorkerBlocks) -> Mapping[str, int]:
        """What it holds; `blocks`: what it holds as far as this process's index knows."""
        ...

    def layout(self, blocks: WorkerBlocks) -> CacheLayout:
        """How its cache is divided; `blocks`: as this process's index knows the worker."""
        ...

    def owner(self, worker: Worker) -> str:
        """The replica that applies its events, empty if it is this one."""
        ...

    def models(self) -> Iterator[tuple[Worker, str]]:
        """All of them, with the models they serve."""
        ...


class OwnWorkers:
    """Those whose events are applied here."""

    def __init__(self, streams: Mapping[Worker, WorkerStream]) -> None:
        self._streams = streams

    def standing(self, worker: Worker, now: float) -> Standing:
        """See `Workers`."""
        return self._streams[worker].standing(now)

    def report(self, worker: Worker, now: float) -> Report:
        """See `Workers`."""
        return self._streams[worker].report(now)

    def blocks_by_tier(self, blocks: WorkerBlocks) -> Mapping[str, int]:
        """See `Workers`."""
        return blocks.by_tier

    def layout(self, blocks: WorkerBlocks) -> CacheLayout:
        """See `Workers`."""
        return blocks.layout

    def owner(self, worker: Worker) -> str:  # noqa: ARG002
        """See `Workers`."""
        return ""

    def models(self) -> Iterator[tuple[Worker, str]]:
        """See `Workers`."""
        return ((worker, stream.model) for worker, stream in list(self._streams.items()))


class SharedWorkers:
    """Those whose events are applied here, and those that `copy` follows.

    live: the replicas that are, as of the last beat. most_behind: seconds after which a copy is too
    old to be believed. stale_after: seconds of silence, 0 for never. scheme_of: model -> what the
    scheme of its block keys is called here.
    """

    def __init__(
        self,
        streams: Mapping[Worker, WorkerStream],
        copy: Copy,
        most_behind: float,
        stale_after: float,
        scheme_of: Callable[[str], str],
    ) -> None:
        self._streams = streams
        self._scheme_of = scheme_of
        self._copy = copy
        self._most_behind = most_behind
        self._stale_after = stale_after
        self.live: Collection[str] = ()

    def is_own(self, worker: Worker) -> bool:
        """Whether its events are applied here."""
        return worker in self._streams

    def standing(self, worker: Worker, now: float) -> Standing:
        """See `Workers`."""
        stream = self._streams.get(worker)
        if stream is not None:
            return stream.standing(now)
        followed = self._copy.followed.get(worker)
        if followed is None:
            return Standing(State.RECOVERING, "changing_hands", None, None)
        reason = ""
        if followed.loading:
            reason = "copy_loading"
        elif self._is_behind(now):
            reason = "copy_behind"
        standing = self.followed_standing(followed, now, reason)
        if followed.thinned and standing.state is State.EXACT:
            return standing._replace(state=State.PARTIAL, reason="evicted")
        return standing

    def _is_behind(self, now: float) -> bool:
        """Whether what is known of the workers of others is too old."""
        if self._copy.with_blocks:
            behind = self._copy.behind(now)
            return behind is None or behind > self._most_behind
        refreshed_at = self._copy.refreshed_at
        return refreshed_at is None or now - refreshed_at > self._most_behind + _REFRESH_SECONDS

    def followed_standing(self, followed: Followed, now: float, doubt: str = "") -> Standing:
        """What its owner claims of a worker, as far as that can be believed.

        doubt: why it cannot, besides what is judged here; or "".
        """
        doubt = doubt or self.doubt_of(followed.standing)
        return judged(followed.standing.claim, self.silent(followed, now), doubt, self._stale_after)

    def doubt_of(self, told: Told) -> str:
        """Why what is told of a worker may not be so, or ""."""
        if told.scheme != self._scheme_of(told.model):
            return "other_settings"
        return "" if told.owner in self.live else "owner_lost"

    @staticmethod
    def silent(followed: Followed, now: float) -> float | None:
        """Seconds since the worker's last sign of life, as far as its owner has told."""
        if not followed.report:
            return None
        silent: float | None = unpacked(followed.report)["silent"]
        return None if silent is None else silent + max(0.0, now - followed.reported_at)

    def report(self, worker: Worker, now: float) -> Report:
        """See `Workers`."""
        stream = self._streams.get(worker)
        if stream is not None:
            return stream.report(now)
        followed = self._copy.followed.get(worker)
        if followed is None or not followed.report:
            return Report()
        told = unpacked(followed.report)
        told.pop("blocks", None)
        passed = max(0.0, now - followed.reported_at)
        for age in ("silent", "last_event_age"):
            told[age] = None if told[age] is None else told[age] + passed
        return Report(**told)

    def blocks_by_tier(self, blocks: WorkerBlocks) -> Mapping[str, int]:
        """See `Workers`."""
        followed = self._copy.followed.get(blocks.worker)
        if self._copy.with_blocks or followed is None or not followed.report:
            return blocks.by_tier
        told: dict[str, int] = unpacked(followed.report)["blocks"]
        return told

    def layout(self, blocks: WorkerBlocks) -> CacheLayout:
        """See `Workers`."""
        followed = self._copy.followed.get(blocks.worker)
        return blocks.layout if followed is None else followed.standing.layout

    def owner(self, worker: Worker) -> str:
        """See `Workers`."""
        followed = self._copy.followed.get(worker)
        return "" if followed is None else name_of(followed.standing.owner)

    def models(self) -> Iterator[tuple[Worker, str]]:
        """See `Workers`."""
        own = {worker: stream.model for worker, stream in self._streams.items()}
        others = {worker: f.standing.model for worker, f in self._copy.followed.items()}
        return iter({**others, **own}.items())


def judged(claim: Claim, silent: float | None, doubt: str, stale_after: float) -> Standing:
    """What an owner's claim amounts to if there is a `doubt` (or "") about its being the newest."""
    state = State(claim.state)
    if state is State.UNKNOWN:
        return Standing(state, claim.reason, silent, claim.as_of)
    if doubt:
        kind = State.STALE if doubt == "copy_behind" else State.RECOVERING
        return Standing(kind, doubt, silent, claim.as_of)
    if stale_after and silent is not None and silent > stale_after:
        return Standing(State.STALE, "silent", silent, claim.as_of)
    return Standing(state, claim.reason, silent, claim.as_of)
