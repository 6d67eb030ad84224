"""How much of what is claimed of a worker can be relied upon. Pure: no clock, no I/O.

A worker's state, from best to worst:

    exact       everything since a known empty start was applied
    partial     what is claimed is true, but the worker may hold more
    degraded    something was lost: what is claimed may be gone
    recovering  something was, or may have been, lost, and a replay is under way
    stale       nobody vouches for it: no connection, no answer, or no sign of life
    unknown     nothing was ever heard

What moves a worker from one to another:

    | what happened                                     | gpu       | memory    | storage   |
    |---------------------------------------------------|-----------|-----------|-----------|
    | `begin`: nothing is claimed, all is yet to come   | exact     | exact     | partial   |
    | `restart`: another engine is in its place         | exact     | exact     | degraded  |
    | `unheard`: nothing is known of the engine         | unknown, whatever else was said   |
    | `join_late`: earlier frames are not known         | >= partial in all three           |
    | `doubt`: something was lost, or not understood    | >= as said, where said            |
    | `cleared`: AllBlocksCleared                       | exact     |           |           |
    | `forgotten`: what was degraded is not claimed     | <= partial in all three           |

What is said of the stream that a worker's events come through stands above that, for as long as it
is so (see `WorkerStream.standing`); where several are so the first of the table is said:

    | what is so                                          | state                             |
    |-----------------------------------------------------|-----------------------------------|
    | two live connections speak for the worker           | degraded (two_engines_one_name)   |
    | no connection that it speaks through is up          | stale (disconnected)              |
    | its replay socket was asked, and did not answer     | stale (replay_unanswered)         |
    | no sign of life for the configured time             | stale (silent)                    |
    | its wire cannot tell of salts and images            | degraded (extra_keys_not_sent)    |

A connection that was lost is not made good by a new one alone: the new one is another doubt
(`reconnected`), which goes when the engine's replay socket has shown that it is the same engine, or
what the other one holds.

Tiers fall into three classes, because they lose their contents at different times: `gpu` with
every reset, `memory` with the process, `storage` with neither. A class that the model's workers do
not use does not count (see `ClassesInUse`). The state is the worst of the classes that count, or
`recovering` while a replay is awaited.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from indexer import TrustState

if TYPE_CHECKING:
    from collections.abc import Iterable


class TierClass(IntEnum):
    """Tiers by when they lose their contents."""

    GPU = 0
    MEMORY = 1
    STORAGE = 2


EVERYWHERE = tuple(TierClass)
_CLASSES = {"gpu": TierClass.GPU, "cpu": TierClass.MEMORY}
_GPU_STORES_THAT_TELL = 16


def class_of(tier: str) -> TierClass:
    """The class of a tier; one not known is taken to outlive the engine, and so to be doubted."""
    return _CLASSES.get(tier, TierClass.STORAGE)


class Doubt(NamedTuple):
    """Why a class of tiers is not exact.

    state: partial or degraded. mendable: whether applying everything again could help.
    """

    state: TrustState
    reason: str
    recoverable: bool


_ORPHANS = Doubt(TrustState.PARTIAL, "orphans", recoverable=True)


class ClassesInUse:
    """The classes of tiers that the workers of a model use, as far as their events tell.

    Storage is in use once an event has named it. Memory is, too, but it is also presumed to be
    until so many events have stored blocks on a GPU that one would have named it by now: an engine
    with an offload tier copies blocks there as they are stored.
    """

    def __init__(self) -> None:
        self._used = {TierClass.GPU}
        self._presumed = {TierClass.MEMORY}
        self.gpu_stores = 0
        self._trusts: set[Trust] = set()

    def add(self, index: TierClass) -> None:
        """A worker uses `index`: it counts for all of them from now on."""
        if index not in self._used:
            self._used.add(index)
            self._recompute()

    def count_gpu_stores(self, events: int = 1) -> None:
        """So many more events have stored blocks on a GPU."""
        self.gpu_stores += events
        if self._presumed and self.gpu_stores >= _GPU_STORES_THAT_TELL:
            self._presumed.clear()
            self._recompute()

    def _recompute(self) -> None:
        for trust in self._trusts:
            trust.recompute()

    def subscribe(self, trust: Trust) -> None:
        """Tell `trust` of new classes."""
        self._trusts.add(trust)

    def unsubscribe(self, trust: Trust) -> None:
        """Tell `trust` no more."""
        self._trusts.discard(trust)

    def __contains__(self, index: TierClass) -> bool:
        return index in self._used or index in self._presumed


class Trust:
    """The state of one worker.

    state, reason: as of now, without regard to silence; the reason is empty if exact.
    waits_for: why a replay is awaited, or "".
    classes: those in use, shared by the workers of a model.
    """

    __slots__ = (
        "_doubts",
        "_extras_not_sent",
        "_is_heard",
        "_orphans",
        "classes",
        "reason",
        "recovery_reason",
        "state",
    )

    def __init__(self, classes: ClassesInUse | None = None) -> None:
        self.classes = classes or ClassesInUse()
        self.classes.subscribe(self)
        self._doubts: list[Doubt | None] = [None, None, None]
        self._is_heard = False
        self.recovery_reason = ""
        self._orphans = False
        self._extras_not_sent = False
        self.recompute()

    def on_begin(self) -> None:
        """All frames there are of the worker will be applied: it begins empty."""
        self._is_heard = True
        self._doubts[:] = (
            None,
            None,
            Doubt(TrustState.PARTIAL, "storage_from_before", recoverable=False),
        )
        self.recompute()

    def mark_unheard(self) -> None:
        """Nothing of the engine that is in the worker's place now was ever heard."""
        self._is_heard = False
        self.recompute()

    def mark_heard(self) -> None:
        """The engine that is in the worker's place now was heard from its first frame on."""
        self._is_heard = True
        self.recompute()

    def join_late(self, reason: str, mendable: bool) -> None:
        """The worker has been at work before the first frame that is known."""
        self._is_heard = True
        self.downgrade(TrustState.PARTIAL, reason, mendable=mendable)

    def on_restart(self) -> None:
        """Another engine is in the worker's place: gpu and memory are empty.

        What of storage was lost in the last moments of the former one nobody knows.
        """
        self._is_heard = True
        self._doubts[:] = None, None, Doubt(TrustState.DEGRADED, "restarted", recoverable=False)
        self.recompute()

    def downgrade(
        self,
        state: TrustState,
        reason: str,
        classes: Iterable[TierClass] = EVERYWHERE,
        mendable: bool = True,
    ) -> None:
        """Something happened that leaves `classes` partial or degraded."""
        for index in classes:
            before = self._doubts[index]
            if before is None or (
                before.state is TrustState.PARTIAL and state is TrustState.DEGRADED
            ):
                self._doubts[index] = Doubt(state, reason, mendable)
        self.recompute()

    def set_orphans(self, *, waiting: bool) -> None:
        """Whether blocks wait for their parents."""
        if waiting != self._orphans:
            self._orphans = waiting
            self.recompute()

    def mark_extras_not_sent(self) -> None:
        """Events come without salts and images: a block may be another's than it seems."""
        if not self._extras_not_sent:
            self._extras_not_sent = True
            self.recompute()

    def on_gpu_cleared(self) -> None:
        """The engine has dropped everything in its GPU's memory."""
        self._doubts[TierClass.GPU] = None
        self.recompute()

    def on_degraded_dropped(self) -> None:
        """All that was claimed in classes that are degraded has been dropped."""
        for index, doubt in enumerate(self._doubts):
            if doubt is not None and doubt.state is TrustState.DEGRADED:
                self._doubts[index] = doubt._replace(state=TrustState.PARTIAL)
        self.recompute()

    def begin_recovery(self, reason: str) -> None:
        """A replay is awaited."""
        self.recovery_reason = reason
        self.recompute()

    def end_recovery(self) -> None:
        """No replay is awaited any more."""
        self.recovery_reason = ""
        self.recompute()

    @property
    def degraded_classes(self) -> list[TierClass]:
        """The classes in which what is claimed may be gone, whether or not they are in use."""
        return [
            index
            for index in TierClass
            if (doubt := self._doubts[index]) is not None and doubt.state is TrustState.DEGRADED
        ]

    @property
    def recoverable(self) -> bool:
        """Whether applying everything again could make the state better."""
        return any(doubt.recoverable for doubt in self._counted())

    def is_exact(self, index: TierClass) -> bool:
        """Whether nothing about a class is in doubt."""
        return self._is_heard and self._doubts[index] is None

    def _counted(self) -> list[Doubt]:
        counted = [
            doubt
            for index in TierClass
            if (doubt := self._doubts[index]) is not None and index in self.classes
        ]
        return [*counted, _ORPHANS] if self._orphans else counted

    def recompute(self) -> None:
        """Work the state out anew."""
        counted = self._counted()
        self.state, self.reason = TrustState.EXACT, ""
        if self.recovery_reason:
            self.state, self.reason = TrustState.RECOVERING, self.recovery_reason
        elif not self._is_heard:
            self.state, self.reason = TrustState.UNKNOWN, "never_heard"
        elif counted:
            worst = next((d for d in counted if d.state is TrustState.DEGRADED), counted[0])
            self.state, self.reason = worst.state, worst.reason
        if self._extras_not_sent and self.state in (TrustState.EXACT, TrustState.PARTIAL):
            self.state, self.reason = TrustState.DEGRADED, "extra_keys_not_sent"

    # Snapshots

    def dump(self) -> list[tuple[str, str, bool] | None]:
        """What `load` takes."""
        return [
            doubt and (doubt.state.value, doubt.reason, doubt.recoverable) for doubt in self._doubts
        ]

    def load(self, dumped: list[tuple[str, str, bool] | None]) -> None:
        """Be as a worker was that has been heard."""
        self._is_heard = True
        self._doubts = [
            None if doubt is None else Doubt(TrustState(doubt[0]), doubt[1], bool(doubt[2]))
            for doubt in dumped
        ]
        self.recompute()
