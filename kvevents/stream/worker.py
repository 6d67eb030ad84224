"""One worker's stream of events: frames put in order, applied, and how far to trust the outcome."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import structlog

from indexer import TrustState
from kvevents.sequencing import FrameSequencer, Incarnation
from kvevents.stream.performer import Performer
from kvevents.stream.polling import PollSchedule
from kvevents.stream.received import fingerprint_of, received_frame
from kvevents.stream.recent import RecentEvents
from kvevents.stream.report import trust_status_of
from kvevents.stream.signs_of_life import SignsOfLife
from kvevents.trust import Downgrade
from kvevents.wire import class_of

if TYPE_CHECKING:
    from indexer import TrustStatus, Worker
    from kvevents.applying.applier import Applier
    from kvevents.sequencing import ReplayRequest
    from kvevents.source import Source
    from kvevents.stream.connections import SourceConnections
    from kvevents.stream.environment import StreamEnvironment
    from kvevents.transport import Frame
    from kvevents.trust import Trust
    from kvevents.wire import Batch

_log = structlog.get_logger("kvatlas.kvevents")


class WorkerStream:
    """The stream of one worker. It changes the worker's trust as its frames and replays tell.

    Args:
        worker, model: whose stream this is, and the model that the worker serves.
        applier: writes the worker's events to the index.
        trust: the worker's trust.
        environment: what streams share: policy, memory, callbacks.

    Attributes:
        source: where its frames come from; None before the first `attach`.
        connection: the connection it speaks through; None before the first.
        rivals: other live connections through which somebody speaks in the worker's name.
        recent: the last events that were applied.
        foreign_replay: what is wrong if the replay socket has another worker's frames, else empty.
    """

    def __init__(
        self,
        worker: Worker,
        model: str,
        applier: Applier,
        trust: Trust,
        environment: StreamEnvironment,
    ) -> None:
        self.worker = worker
        self.model = model
        self.applier = applier
        self.trust = trust
        self.sequencer = FrameSequencer(environment.budget, can_replay=False)
        self.source: Source | None = None
        self.source_connections: SourceConnections | None = None
        self.connection: int | None = None
        self.rivals: set[int] = set()
        self.live_frames = 0
        self.signs_of_life = SignsOfLife()
        self.recent = RecentEvents()
        self.foreign_replay, self.is_closed = "", False
        self._environment = environment
        self._is_connection_lost = False
        self._polls = PollSchedule()
        self._performer = Performer(self, environment, self._polls)
        self._status: TrustStatus | None = None  # as last asked for, while it holds
        self._trust_version = 0

    # Where frames come from

    def attach(self, source: Source, connections: SourceConnections) -> None:
        """Expect the worker's frames from `source` from now on."""
        self._status = None
        self.source = source
        self.applier.read_extra_strings_as(source.extra_strings)
        self.look_for_replay_socket()
        if self.source_connections is not None:
            self.source_connections.streams.discard(self)
        self.source_connections = connections
        connections.streams.add(self)

    def look_for_replay_socket(self) -> None:
        """Find out whether there is a replay socket; its address may follow from the peer's."""
        self._status = None
        self.sequencer.on_source_changed(can_replay=self.replay_endpoint is not None)

    @property
    def replay_endpoint(self) -> str | None:
        """The address of the engine's replay socket, None if there is none."""
        peer = self._environment.peers.get(self.worker, "")
        return None if self.source is None else self.source.replay_endpoint(self.worker, peer)

    def close(self) -> None:
        """Release the memory of everything that waits; the stream is not used any more."""
        self._status = None
        self.is_closed = True
        self._performer.close()
        self.sequencer.close()
        self.applier.orphans.clear()
        if self.source_connections is not None:
            self.source_connections.streams.discard(self)

    # Connections

    @property
    def is_connected(self) -> bool:
        """Whether the connection that the worker speaks through is not known to be lost."""
        return self.connection is not None and not self._is_connection_lost

    def on_connection_changed(self, connection: int, *, is_lost: bool = False) -> None:
        """The worker speaks through another connection, so it may be another publisher.

        is_lost: whether that connection is lost by now.
        """
        self._status = None
        if connection == self.connection:
            return
        suspicion = "reconnected"
        if self.connection is None:  # only a restored stream has started without a connection
            suspicion = "restored" if self.sequencer.has_started else ""
        self.connection = connection
        self._is_connection_lost = is_lost
        self.rivals.discard(connection)
        self._performer.perform(self.sequencer.on_connection_changed(suspicion))

    def on_rival(self, connection: int, *, is_lost: bool) -> None:
        """A frame in the worker's name has come through another connection, which may be lost."""
        self._status = None
        self.sequencer.counts.rivals += 1
        if not is_lost and connection not in self.rivals:
            self.rivals.add(connection)
            self._environment.on_change()

    def on_disconnected(self, connection: int) -> None:
        """A connection was lost: the worker's, or a rival's."""
        self._status = None
        if connection == self.connection:
            self._is_connection_lost = True
            self.signs_of_life.on_disconnected()
        elif connection not in self.rivals:
            return
        self.rivals.discard(connection)
        self._polls.poll_at_once()
        self._environment.on_change()

    # Frames

    def on_live_frame(self, frame: Frame, batch: Batch | None) -> None:
        """A frame was published; `batch` is None if its payload could not be decoded."""
        self._status = None
        self.live_frames += 1
        now = self.signs_of_life.on_frame()
        accept_next, fingerprint = self.sequencer.accept_next, fingerprint_of(frame.payload)
        if (
            batch is not None
            and not batch.skipped
            and accept_next(frame.sequence, frame.epoch, fingerprint, batch.timestamp)
        ):
            self.recent.add_live(frame.sequence, now, frame.payload, batch)
            self._performer.apply(batch)
        else:
            self._performer.perform(
                self.sequencer.on_live_frame(received_frame(frame, batch, fingerprint))
            )

    def on_heartbeat(self, frame: Frame) -> None:
        """The publisher is alive, and says how far it has got."""
        self._status = None
        self.signs_of_life.on_heartbeat()
        actions = self.sequencer.on_heartbeat(frame.sequence, frame.epoch)
        if not actions and self.sequencer.may_have_missed(frame.sequence, frame.epoch):
            self._polls.poll_at_once()
        self._performer.perform(actions)

    def on_replayed_frame(self, request: ReplayRequest, frame: Frame, batch: Batch | None) -> None:
        """A frame has come in answer to `request`."""
        self._status = None
        self.foreign_replay = ""
        self.signs_of_life.on_answer()
        received = received_frame(frame, batch, fingerprint_of(frame.payload))
        self._performer.perform(self.sequencer.on_replayed_frame(request, received))

    def on_foreign_replay(self, detail: str) -> None:
        """The replay socket answers with another worker's frames."""
        self.foreign_replay = detail

    def on_replay_finished(self, request: ReplayRequest, *, complete: bool) -> None:
        """The answer to `request` is over; complete: the engine itself said so."""
        self._status = None
        if complete:
            self.signs_of_life.on_answer()
            if not self.is_connected:
                self._environment.on_answer_without_connection(self)
        self._performer.perform(self.sequencer.on_replay_finished(request, complete=complete))
        if self.sequencer.replay_failed:
            self._polls.poll_soon(time.monotonic())

    def resync(self) -> None:
        """Learn the worker's blocks again, as an operator asked."""
        self._status = None
        self._performer.perform(self.sequencer.on_resync())

    def on_under_delivery(self) -> None:
        """The engine reuses less than is claimed: doubt it, and learn its blocks again."""
        self._status = None
        self.trust.follow(Downgrade(TrustState.DEGRADED, "under_delivers"))
        self._performer.conclude()
        if self.sequencer.can_replay:
            self._performer.perform(self.sequencer.on_resync())

    def on_evicted(self, tier: str) -> None:
        """Blocks of the worker in `tier` were evicted from the index for the memory limit."""
        classes = [class_of(tier)]
        self.trust.follow(Downgrade(TrustState.PARTIAL, "evicted", classes, recoverable=False))
        self._performer.conclude()

    def go_on(self, deadline: float) -> bool:
        """Apply what was begun until `deadline` (`time.perf_counter`); False if it is done."""
        while self.is_applying and time.perf_counter() < deadline:
            self._performer.go_on()
        return self.is_applying

    @property
    def is_applying(self) -> bool:
        """Whether a frame was begun, and has events that are not applied yet."""
        return self._performer.is_unfinished

    # Time

    def tick(self, now: float, poll_seconds: float) -> None:
        """Poll the replay socket if it is time to."""
        self._status = None
        if self.is_applying:
            return
        if self._performer.has_news:
            # Another worker of the model has brought a class of tiers into use.
            self._performer.conclude()
        if not self._polls.is_due(now) or not self.sequencer.can_replay:
            return
        urgent = self.sequencer.replay_failed or not self.is_connected
        self._polls.on_polled(now, poll_seconds, urgent=urgent)
        rebuild = self.trust.recoverable and self._polls.allows_rebuild(now)
        actions = self.sequencer.on_poll(rebuild=rebuild)
        if actions and self.sequencer.is_rebuilding:
            self._polls.on_rebuild(now, poll_seconds)
        self._performer.perform(actions)

    def silent_for(self, now: float) -> float | None:
        """Seconds since the last sign of life: 0.0 while connected, None if none has come."""
        if self.connection and self.connection in self._environment.live_connections:
            return 0.0
        return self.signs_of_life.silent_for(now)

    def trust_status(self, now: float) -> TrustStatus:
        """How far what is claimed of the worker can be trusted at `now` (`time.monotonic`).

        Each scored prompt asks for it. It depends on the time only while nobody is connected.
        """
        status, environment = self._status, self._environment
        if (
            status is None
            or self._trust_version != self.trust.version
            or self.connection not in environment.live_connections
        ):
            status = trust_status_of(self, now, environment.policy.stale_after)
            self._trust_version = self.trust.version
            self._status = status if status.silent == 0.0 else None
        return status

    def forget_status(self) -> None:
        """Something has changed that the trust status depends on."""
        self._status = None

    def restore(
        self, dumped: dict[str, Any], connection: int | None = None, suspicion: str = "restored"
    ) -> None:
        """Go on where the dumped stream had got to; the index must hold what it held then.

        suspicion: why it may be another engine; empty if the same one is known to go on.
        """
        self._status = None
        self.signs_of_life.on_restored()
        self.connection, self._is_connection_lost = connection, False
        self._performer.follow(self.applier.restore(dumped["tiers"]))
        self.trust.classes.raise_gpu_stores(dumped["gpu_stores"])
        self.trust.load(dumped["doubts"])
        if dumped["orphans"]:
            self.trust.follow(Downgrade(TrustState.PARTIAL, "orphans_not_saved"))
        self._performer.perform(self.sequencer.restore(Incarnation.load(dumped["life"]), suspicion))
