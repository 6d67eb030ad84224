"""Performs what the sequencer decides: applies events, changes trust, requests replays."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from indexer import TrustState
from kvevents.applying import PIECE_KEYS, weight_of
from kvevents.sequencing import Apply, EngineRestarted, ReplayRequest, StartOver
from kvevents.wire import ALL_TIER_CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kvevents.sequencing import Action
    from kvevents.stream.environment import StreamEnvironment
    from kvevents.stream.polling import PollSchedule
    from kvevents.stream.worker import WorkerStream
    from kvevents.trust import TrustChange
    from kvevents.wire import Batch


class Performer:
    """Performs the actions of one worker's stream, in order.

    Frames with many events, and many frames, are begun at once, and gone on with in slices, so that
    requests are answered in between; see `Unfinished`.
    """

    def __init__(
        self, stream: WorkerStream, environment: StreamEnvironment, polls: PollSchedule
    ) -> None:
        self._stream = stream
        self._applier, self._trust = stream.applier, stream.trust
        self._environment = environment
        self._polls = polls
        self._reported_state = stream.trust.state
        self._noted_version = stream.trust.version
        self._steps: Iterator[None] | None = None

    # Slices

    @property
    def is_unfinished(self) -> bool:
        """Whether a frame was begun, and has events that are not applied yet."""
        return self._steps is not None

    def go_on(self) -> bool:
        """Apply one slice of what was begun; returns whether something remains."""
        if self._steps is not None:
            self._stream.forget_status()
            try:
                next(self._steps)
            except StopIteration:
                self._steps = None
        return self.is_unfinished

    def finish(self) -> None:
        """Apply all that was begun."""
        while self.go_on():
            pass

    def close(self) -> None:
        """Leave what was begun as it is."""
        self._steps = None

    def _begin(self, steps: Iterator[None]) -> None:
        self._steps = steps
        if self.go_on():
            self._environment.unfinished.add(self.go_on)

    # Actions

    def apply(self, batch: Batch) -> None:
        """Apply the frame that is next."""
        if self._steps is not None:
            self.finish()
        if self._applier.is_short(batch):
            changes = self._applier.apply_short_batch(batch)
            if changes:
                self.follow(changes)
            self.conclude()
        else:
            self._begin(self._apply_and_conclude(batch))

    def perform(self, actions: Sequence[Action]) -> None:
        """Perform the actions of the sequencer."""
        self.finish()
        self._begin(self._perform(actions))

    def _apply_and_conclude(self, batch: Batch) -> Iterator[None]:
        yield from self._apply(batch)
        self.conclude()

    def _perform(self, actions: Sequence[Action]) -> Iterator[None]:
        weight = 0
        for action in actions:
            match action:
                case Apply():
                    if weight >= PIECE_KEYS:
                        yield
                        weight = 0
                    if (batch := action.frame.batch) is not None:
                        weight += weight_of(batch, self._applier.groups.span)
                        sequence = action.frame.sequence
                        self._stream.recent.add(sequence, time.monotonic(), batch)
                    yield from self._apply(batch)
                case ReplayRequest():
                    self._environment.request_replay(self._stream, action)
                case EngineRestarted():
                    self._log_event("worker_restarted")
                    self.follow(self._applier.on_engine_restarted())
                case StartOver():
                    self.follow(self._applier.on_engine_restarted())
                    self.follow(self._applier.drop_classes(ALL_TIER_CLASSES))
                case _:
                    self._trust.follow(action)
        self.conclude()

    def _apply(self, batch: Batch | None) -> Iterator[None]:
        if batch is None:
            self._applier.counts.skipped["undecodable_frame"] += 1
        else:
            yield from self._applier.apply_in_slices(batch)
            self.follow(self._applier.take_trust_changes())

    def follow(self, changes: Iterable[TrustChange]) -> None:
        """Take changes of trust into account."""
        for change in changes:
            self._trust.follow(change)

    # Trust

    def conclude(self) -> None:
        """Act on changes of trust, then report that something may have changed."""
        self._stream.forget_status()
        if self._trust.state is not self._reported_state:
            self._on_trust_changed()
        if self._trust.version != self._noted_version:
            self._noted_version = self._trust.version
            self._environment.on_trust_changed(self._stream)
        self._environment.on_change()

    @property
    def has_news(self) -> bool:
        """Whether the trust state is another one than was reported."""
        return self._trust.state is not self._reported_state

    def _on_trust_changed(self) -> None:
        trust = self._trust
        degraded = trust.degraded_classes
        if self._environment.policy.forget_on_doubt and degraded and not trust.recovering:
            doubted = self._stream.sequencer.publisher_in_doubt
            self.follow(self._applier.drop_classes(degraded, forget_hashes=doubted))
            self._stream.sequencer.resolve_publisher_doubt()
            trust.on_degraded_dropped()
        if trust.state is TrustState.EXACT:
            self._polls.on_exact()
        elif trust.reason == "contradiction":
            self._polls.poll_at_once()
        if self.has_news:
            was = self._reported_state.value
            self._log_event("pod_state", state=trust.state.value, was=was, reason=trust.reason)
            self._reported_state = trust.state

    def _log_event(self, event: str, **values: Any) -> None:
        worker = self._stream.worker
        self._environment.log.info(event, pod=worker.pod, rank=worker.rank, **values)
