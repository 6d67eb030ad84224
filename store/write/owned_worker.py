"""A worker that this replica owns: what the store has of it, as far as that is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from store.errors import StoreError
from store.layout import worker_name

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from indexer import TrustStatus, Worker
    from store.records import HandoverState, ShardStatus, WorkerRecord
    from store.store import Acquired


class Outcome(NamedTuple):
    """What follows from the answers to one write."""

    requeue: bool = False
    """Whether the changes have to be written once more."""
    fenced: bool = False
    """Whether another replica owns the worker."""
    failure: StoreError | None = None


@dataclass
class OwnedWorker:
    """A worker of this replica, and what the store has of it."""

    worker: Worker
    model: str
    scope: int
    """Keeps the names of the model's blocks apart from those of other models."""
    endpoint: str
    """Of the source through which the worker publishes."""
    scheme: str = ""
    """Name of the scheme of the worker's block keys."""
    epoch: int = 0
    generation: str = ""
    revision: int = 0
    """Of the last write that the store has confirmed."""
    bits: dict[int, int] = field(default_factory=dict)
    """Holder id -> bit."""
    retired_bits: dict[int, int] = field(default_factory=dict)
    """The same for holder ids that were released: blocks may still have these bits."""
    shard_stamps: dict[int, str] = field(default_factory=dict)
    """Shard -> stamp of the last write there, for shards other than the home."""
    possible_stamps: dict[int, set[str]] = field(default_factory=dict)
    """Shard -> every stamp that may be there: a write without an answer may have arrived."""
    unsettled_shards: set[int] = field(default_factory=set)
    """Shards at which a write may still arrive, because there was no answer yet."""
    registry: str = ""
    """Registry that allocated the bits; empty before the first."""
    last_written: TrustStatus | None = None
    """Status in the store; None has the next round write in any case."""
    writes_requested: int = 0
    """How often something beside the blocks and the status was to be written."""
    writes_done: int = 0
    """How many of these requests the store has confirmed."""
    record: WorkerRecord | None = None
    """The record in the store."""
    in_doubt: bool = False
    """Whether the last write got no answer: the store may have it or not."""
    needs_rewrite: bool = False
    """Whether everything is to be written again, into a new generation."""

    def bit_label(self, holder_id: int) -> str:
        """Return the label under which a holder's bit is allocated."""
        return f"{self.generation}:{holder_id}"

    def bit_labels(self) -> dict[str, int]:
        """Return label -> bit of all holder ids that blocks may have bits of."""
        bits = {**self.bits, **self.retired_bits}
        return {self.bit_label(holder_id): bit for holder_id, bit in bits.items()}

    def overwrites(self, scored: Collection[int]) -> bool:
        """Whether the store may have rows of released holder ids, some of whose bits blocks have.

        scored: the holder ids that count in scores now.
        """
        return bool(self.retired_bits) or any(holder_id not in scored for holder_id in self.bits)

    # Generations

    def resume(self, acquired: Acquired, state: HandoverState | None) -> None:
        """Go on with the generation of the last owner, whose `state` it was, if any."""
        self.epoch, self.generation = acquired.epoch, acquired.generation
        self.revision = acquired.revision
        if state is not None:
            self.bits, self.retired_bits = state.bits, state.retired_bits
            self.shard_stamps, self.registry = state.shard_stamps, state.registry
            self.possible_stamps = {shard: {stamp} for shard, stamp in state.shard_stamps.items()}

    def begin_generation(self, acquired: Acquired) -> None:
        """Start with nothing in the store, in a new generation."""
        self.epoch, self.generation = acquired.epoch, acquired.generation
        self.revision = acquired.revision
        self.bits, self.retired_bits = {}, {}
        self.shard_stamps, self.possible_stamps = {}, {}
        self.unsettled_shards = set()  # what may still arrive has bits of the former generation
        self.registry = ""
        self.needs_rewrite = self.in_doubt = False
        self.last_written = None

    # Losses

    def find_losses(self, home: int, statuses: Sequence[ShardStatus]) -> bool:
        """Compare with what the shards have; return whether anything is to be written again."""
        name, at_home = worker_name(self.worker), statuses[home]
        stamp = f"{self.epoch}:{self.revision}"
        is_intact = at_home.applied.get(name) == stamp and at_home.records.get(name) == self.record
        if self.revision and not is_intact:
            self.last_written = None  # the next write finds out what has happened, or mends it
        self.needs_rewrite |= self.registry not in ("", statuses[0].registry) or any(
            statuses[shard].applied.get(name) not in stamps
            for shard, stamps in self.possible_stamps.items()
        )
        return self.needs_rewrite or self.last_written is None

    # Answers

    def conclude(
        self, record: WorkerRecord, requests: int, home: Any, others: dict[int, Any]
    ) -> Outcome:
        """Remember what the store has confirmed.

        Args:
            record: as written.
            requests: `writes_requested` as of that write.
            home: answer of the worker's home, or the StoreError in its place.
            others: answers of the other shards written to, likewise.
        """
        self._conclude_bits(record, others)
        failed = [answer for answer in others.values() if isinstance(answer, StoreError)]
        if isinstance(home, StoreError):
            self.in_doubt = True
            self.needs_rewrite |= home.kind == "malformed"  # nobody knows what else is lost
            return Outcome(requeue=True, failure=home)
        if home[0] == b"FENCED":
            return Outcome(fenced=True)
        if home[0] == b"OK":
            self.revision += 1
            self.shard_stamps = record.shard_stamps
            self.last_written, self.record = record.status, record
            self.writes_done = requests
            self.in_doubt = False
            return Outcome(requeue=bool(failed), failure=failed[0] if failed else None)
        if self.in_doubt and home[1] == str(self.revision + 1).encode():
            self.revision += 1  # the write without an answer had arrived
            self.in_doubt = False
            return Outcome(requeue=True)
        self.needs_rewrite = True
        return Outcome()

    def _conclude_bits(self, record: WorkerRecord, others: dict[int, Any]) -> None:
        for shard, answer in others.items():
            stamp = record.shard_stamps[shard]
            if isinstance(answer, StoreError):
                # The bits may have arrived all the same: both stamps are possible from now on.
                self.possible_stamps.setdefault(shard, set()).add(stamp)
                self.needs_rewrite |= answer.kind == "malformed"
            elif answer[0] == b"OK":
                self.possible_stamps[shard] = {stamp}
                self.unsettled_shards.discard(shard)  # it refuses the lost write from now on
            else:
                self.needs_rewrite = True
