"""How far what is claimed of a worker can be trusted. Pure: no clock, no I/O.

What moves a worker from one state to another, by class of tiers (see `TrustState`, `TierClass`):

    | trust change                                           | gpu       | memory    | storage  |
    |--------------------------------------------------------|-----------|-----------|----------|
    | `StartedEmpty`: nothing is claimed, all is yet to come | exact     | exact     | partial  |
    | `Restarted`: another engine has taken its place        | exact     | exact     | degraded |
    | `NeverHeard`: nothing is known of the engine           | unknown, whatever else happened  |
    | `JoinedLate`: earlier frames are not known             | at least partial in all three    |
    | `Downgrade`: something was lost, or not understood     | at least as it says, where it says |
    | `GpuCleared`: AllBlocksCleared                         | exact     |           |          |
    | `on_degraded_dropped`: nothing degraded is claimed now | at most partial in all three     |

What is so of the stream that the worker's events come through counts more, for as long as it is so
(see `WorkerStream.trust_status`); the first of these that applies is the status:

    | condition                                           | state                             |
    |-----------------------------------------------------|-----------------------------------|
    | two live connections speak for the worker           | degraded (two_engines_one_name)   |
    | a long frame is being applied                       | recovering (applying)             |
    | it was never heard, or its stream has not started   | as the table above says           |
    | no connection that it speaks through is up          | stale (disconnected)              |
    | its replay socket did not answer, none is awaited   | stale (replay_unanswered)         |
    | whoever discovered its pod says it is not ready     | stale (not_ready)                 |
    | no sign of life for the configured time             | stale (silent)                    |
    | its wire format has no salts and images             | degraded (extra_keys_not_sent)    |

A new connection alone does not make up for a lost one. It is another suspicion (`reconnected`),
which is resolved when the engine's replay socket has shown that it is the same engine, or what the
new engine holds.

A class of tiers that the workers of a model do not use does not count (see `ClassesInUse`); one
that a worker has under a name of its own counts for it alone. The state is the worst of the classes
that count, or `recovering` while a replay is awaited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from indexer import TrustState
from kvevents.trust.changes import (
    BeginRecovery,
    Downgrade,
    EndRecovery,
    ExtrasNotSent,
    GpuCleared,
    HeardFromStart,
    JoinedLate,
    NeverHeard,
    OrphansChanged,
    Restarted,
    StartedEmpty,
)
from kvevents.wire import TierClass

if TYPE_CHECKING:
    from kvevents.trust.changes import TrustChange

_GPU_STORES_THAT_TELL = 16


class Doubt(NamedTuple):
    """Why a class of tiers is not exact."""

    state: TrustState
    """Partial or degraded."""
    reason: str
    recoverable: bool
    """Whether applying everything again could help."""


_ORPHANS = Doubt(TrustState.PARTIAL, "orphans", recoverable=True)
_OLDER_STORAGE = Doubt(TrustState.PARTIAL, "storage_from_before", recoverable=False)
_STORAGE_AT_RESTART = Doubt(TrustState.DEGRADED, "restarted", recoverable=False)


class ClassesInUse:
    """The classes of tiers that the workers of one model use, as far as their events show.

    Storage is in use once an event has named it. So is memory, but memory also counts until so many
    events have stored blocks on a GPU that one would have named it by now: an engine with an
    offload tier copies blocks there as it stores them.

    Attributes:
        gpu_stores: events so far that have stored blocks on a GPU.
    """

    def __init__(self) -> None:
        self._used = {TierClass.GPU}
        self._presumed = {TierClass.MEMORY}
        self.gpu_stores = 0
        self._subscribers: set[Trust] = set()

    def add(self, tier_class: TierClass) -> None:
        """Count a class for all workers of the model from now on."""
        if tier_class not in self._used:
            self._used.add(tier_class)
            self._recompute()

    def count_gpu_stores(self, events: int = 1) -> None:
        """Count events that have stored blocks on a GPU."""
        self.gpu_stores += events
        if self._presumed and self.gpu_stores >= _GPU_STORES_THAT_TELL:
            self._presumed.clear()
            self._recompute()

    def raise_gpu_stores(self, events: int) -> None:
        """Go on from a count that was saved, unless more events have come by now."""
        self.count_gpu_stores(max(0, events - self.gpu_stores))

    def _recompute(self) -> None:
        for trust in self._subscribers:
            trust.recompute()

    def subscribe(self, trust: Trust) -> None:
        """Recompute `trust` whenever the classes change."""
        self._subscribers.add(trust)

    def unsubscribe(self, trust: Trust) -> None:
        """Stop recomputing `trust`."""
        self._subscribers.discard(trust)

    def __contains__(self, tier_class: TierClass) -> bool:
        return tier_class in self._used or tier_class in self._presumed


class Trust:
    """The trust in one worker: its stream tells what happens, by `follow`.

    A change of the classes in use recomputes it, too.

    Attributes:
        state: the present state, leaving aside connections and silence.
        reason: one of a few words, empty if the state is exact.
        recovering: why a replay is awaited, empty if none is.
        classes: the classes of tiers in use, shared by the workers of a model.
        version: another number whenever state or reason may have changed.
    """

    __slots__ = (
        "_doubts",
        "_extras_not_sent",
        "_has_orphans",
        "_is_heard",
        "_own_classes",
        "classes",
        "reason",
        "recovering",
        "state",
        "version",
    )

    def __init__(self, classes: ClassesInUse | None = None) -> None:
        self.classes = classes or ClassesInUse()
        self.classes.subscribe(self)
        self._doubts: list[Doubt | None] = [None, None, None]  # by TierClass
        self._is_heard = False
        self.recovering = ""
        self._has_orphans = False
        self._extras_not_sent = False
        self._own_classes: set[TierClass] = set()
        self.version = 0
        self.recompute()

    def use_class(self, tier_class: TierClass) -> None:
        """Count a class for this worker alone."""
        self._own_classes.add(tier_class)
        self.recompute()

    def follow(self, change: TrustChange) -> None:
        """Take one change into account; see the module's first table."""
        match change:
            case Downgrade():
                self._downgrade(change)
            case BeginRecovery():
                self.recovering = change.reason
            case EndRecovery():
                self.recovering = ""
            case OrphansChanged():
                self._has_orphans = change.waiting
            case GpuCleared():
                self._doubts[TierClass.GPU] = None
            case ExtrasNotSent():
                self._extras_not_sent = True
            case _:
                self._follow_engine(change)
        self.recompute()

    def _follow_engine(
        self, change: JoinedLate | StartedEmpty | Restarted | HeardFromStart | NeverHeard
    ) -> None:
        """An engine was found in the worker's place, or was not."""
        match change:
            case JoinedLate():
                self._is_heard = True
                state = TrustState.PARTIAL
                self._downgrade(Downgrade(state, change.reason, recoverable=change.recoverable))
            case StartedEmpty():
                self._is_heard = True
                self._doubts[:] = None, None, _OLDER_STORAGE
            case Restarted():
                # Nobody knows what of storage was lost in the former engine's last moments.
                self._is_heard = True
                self._doubts[:] = None, None, _STORAGE_AT_RESTART
            case HeardFromStart():
                self._is_heard = True
            case NeverHeard():
                self._is_heard = False

    def _downgrade(self, change: Downgrade) -> None:
        """Keep the first reason of the worst state of each class."""
        for tier_class in change.classes:
            before = self._doubts[tier_class]
            is_worse = (
                before is not None
                and before.state is TrustState.PARTIAL
                and change.state is TrustState.DEGRADED
            )
            if before is None or is_worse:
                doubt = Doubt(change.state, change.reason, change.recoverable)
                self._doubts[tier_class] = doubt

    def on_degraded_dropped(self) -> None:
        """Everything that was claimed in degraded classes has been dropped from the index."""
        for tier_class, doubt in enumerate(self._doubts):
            if doubt is not None and doubt.state is TrustState.DEGRADED:
                self._doubts[tier_class] = doubt._replace(state=TrustState.PARTIAL)
        self.recompute()

    @property
    def degraded_classes(self) -> list[TierClass]:
        """The classes in which what is claimed may be gone, in use or not."""
        return [
            tier_class
            for tier_class in TierClass
            if (doubt := self._doubts[tier_class]) is not None
            and doubt.state is TrustState.DEGRADED
        ]

    @property
    def recoverable(self) -> bool:
        """Whether applying everything again could make the state better."""
        return any(doubt.recoverable for doubt in self._doubts_that_count())

    def is_exact(self, tier_class: TierClass) -> bool:
        """Whether nothing about a class is in doubt."""
        return self._is_heard and self._doubts[tier_class] is None

    def _doubts_that_count(self) -> list[Doubt]:
        doubts = [
            doubt
            for tier_class in TierClass
            if (doubt := self._doubts[tier_class]) is not None
            and (tier_class in self.classes or tier_class in self._own_classes)
        ]
        return [*doubts, _ORPHANS] if self._has_orphans else doubts

    def recompute(self) -> None:
        """Compute state and reason again."""
        self.version += 1
        doubts = self._doubts_that_count()
        self.state, self.reason = TrustState.EXACT, ""
        if self.recovering:
            self.state, self.reason = TrustState.RECOVERING, self.recovering
        elif not self._is_heard:
            self.state, self.reason = TrustState.UNKNOWN, "never_heard"
        elif doubts:
            worst = next((d for d in doubts if d.state is TrustState.DEGRADED), doubts[0])
            self.state, self.reason = worst.state, worst.reason
        if self._extras_not_sent and self.state in (TrustState.EXACT, TrustState.PARTIAL):
            self.state, self.reason = TrustState.DEGRADED, "extra_keys_not_sent"

    # Snapshots

    def dump(self) -> list[tuple[str, str, bool] | None]:
        """The doubts by class of tiers, as plain values for `load`."""
        return [
            doubt and (doubt.state.value, doubt.reason, doubt.recoverable) for doubt in self._doubts
        ]

    def load(self, dumped: list[tuple[str, str, bool] | None]) -> None:
        """Take over the doubts of a worker that was heard."""
        self._is_heard = True
        self._doubts = [
            None if doubt is None else Doubt(TrustState(doubt[0]), doubt[1], bool(doubt[2]))
            for doubt in dumped
        ]
        self.recompute()
