"""Listens to all sources: sockets, router, replays and timers, started and stopped together."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import structlog
import zmq

from kvevents.applying import EngineSettings
from kvevents.probe import probe_source
from kvevents.replaying import Replays
from kvevents.router import FrameRouter
from kvevents.tools import Recorders
from kvevents.transport import Authenticator, SocketLimits, SubscribeError, Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from indexer import Index, KeyScheme, Worker
    from kvevents.pending import Ownership
    from kvevents.source import Source
    from kvevents.stream import EventPolicy

_TICK_SECONDS = 0.25
_PROBE_SECONDS = 2.0

_log = structlog.get_logger("kvatlas.kvevents")


class Listener:
    """Listens to sources and feeds the index, within an `async with` block.

    Args:
        index: what is fed.
        scheme_of: model -> the scheme of its block keys.
        sources: where frames come from at first; see `add_source`.
        policy: what to do with events, and when to trust them.
        replay_timeout: seconds without a message after which an engine is taken not to answer.
        concurrent_replays: how many replays run at a time.
        socket_limits: what each source's socket may take.
        restored: streams to go on with, as `FrameRouter.dump` returned them; the index must hold
            what it held then.
        ownership: decides whose events are applied here. Unless that is everything, only bound
            sources are listened to from the start, and `listen` adds the others.
        on_change: called when blocks or the trust of any worker may have changed.
        settings_of: model -> what its engines were started with.

    Attributes:
        router: routes the frames to the workers' streams.
        recorders: those who want to see frames as they arrive.
        on_source_connected: called with each source to which a connection was made.
    """

    def __init__(
        self,
        index: Index,
        scheme_of: Callable[[str], KeyScheme],
        sources: Sequence[Source],
        policy: EventPolicy,
        *,
        replay_timeout: float = 2.0,
        concurrent_replays: int = 4,
        socket_limits: SocketLimits | None = None,
        restored: Sequence[dict[str, Any]] = (),
        ownership: Ownership | None = None,
        on_change: Callable[[], None] = lambda: None,
        settings_of: Callable[[str], EngineSettings] = lambda _: EngineSettings(),
    ) -> None:
        self._context = _make_context()
        self.sources = dict.fromkeys(sources)
        self._socket_limits = socket_limits or SocketLimits()
        self._restored = restored
        self._replays = Replays(
            self._context, replay_timeout, concurrent_replays, limits=policy.frame_limits
        )
        self._replay_timeout = replay_timeout
        self._subscribers: dict[Source, Subscriber] = {}
        self._probes: dict[Source, asyncio.Task[None]] = {}
        self.on_source_connected: Callable[[Source], None] = lambda _: None
        self._is_listening = False
        self.router = FrameRouter(
            index,
            scheme_of,
            self._replays,
            policy,
            ownership,
            on_change,
            settings_of,
            self._reconnect,
            self._peer_of,
        )
        self.recorders = Recorders()

    @property
    def endpoints(self) -> list[str]:
        """The address of each source; for a bound port 0 or *, the port that was chosen."""
        subscribers = (self._subscribers.get(source) for source in self.sources)
        return [
            source.endpoint if subscriber is None else subscriber.endpoint
            for source, subscriber in zip(list(self.sources), subscribers, strict=True)
        ]

    async def __aenter__(self) -> Self:
        """Raises SubscribeError if an endpoint cannot be used; what was started is stopped then."""
        async with AsyncExitStack() as stack:
            stack.callback(self._context.term)
            stack.enter_context(Authenticator(self._context, list(self.sources)))
            await stack.enter_async_context(self._replays)
            stack.push_async_callback(self._close)
            owns_everything = self.router.ownership.owns_everything
            at_once = [source for source in self.sources if source.bind or owns_everything]
            for source in at_once:
                self.router.expected.add_source(source)
            if owns_everything:
                self.router.restore(self._restored)
            self._is_listening = True
            for source in at_once:
                await self._listen_at_start(source)
            for name, loop in (("tick", self._tick()), ("apply", self.router.unfinished.run())):
                stack.push_async_callback(_cancel, asyncio.create_task(loop, name=name))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _close(self) -> None:
        for source in list(self._subscribers):
            await self.stop_listening(source)

    # Sources

    async def _listen_at_start(self, source: Source) -> None:
        try:
            await self.listen(source)
        except SubscribeError as error:
            if not source.is_discovered:  # else a stranger's word would keep this from starting
                raise
            _log.warning("not_listening", endpoint=source.endpoint, detail=str(error))

    async def add_source(self, source: Source) -> None:
        """Listen to one more source, which is not to be bound; before the start, listen later.

        One that was added before is tried again, if it is not listened to.

        Unless every worker is this replica's, `listen` is left to those who decide whose it is.

        Raises SubscribeError.
        """
        self.sources[source] = None
        if source in self._subscribers:
            return
        if self._is_listening and self.router.ownership.owns_everything:
            self.router.expected.add_source(source)
            await self.listen(source)

    async def remove_source(self, source: Source) -> None:
        """Stop listening to a source for good, and forget the workers that publish there."""
        self.sources.pop(source, None)
        await self.stop_listening(source)
        self.router.expected.remove_source(source)
        for worker in self.router.ownership.on_source_removed(source):
            self.router.on_refused(worker)

    def is_listening_to(self, source: Source) -> bool:
        """Whether a socket receives what the source publishes."""
        return source in self._subscribers

    def is_drained(self, source: Source | None) -> bool:
        """Whether nothing that the source has published waits here to be handled."""
        subscriber = None if source is None else self._subscribers.get(source)
        return subscriber is None or subscriber.is_drained

    async def listen(self, source: Source) -> None:
        """Receive what the source publishes. Raises SubscribeError."""
        subscriber = Subscriber(self._context, source, self, self._socket_limits)
        self._subscribers[source] = await subscriber.__aenter__()
        if source.pod and source.replay and not (source.model and source.rank is not None):
            probe = probe_source(
                self._context,
                source,
                lambda: self.router.expected.knows_publisher(source),
                lambda topic, rank: self.router.expected.identify_publisher(source, topic, rank),
                min(self.router.policy.poll_seconds, _PROBE_SECONDS),
                self._replay_timeout,
            )
            self._probes[source] = asyncio.create_task(probe, name=f"probe {source.endpoint}")

    async def stop_listening(self, source: Source) -> None:
        """Receive nothing of the source any more."""
        if (probe := self._probes.pop(source, None)) is not None:
            await _cancel(probe)
        subscriber = self._subscribers.pop(source, None)
        if subscriber is not None:
            await subscriber.__aexit__()
            self.router.on_source_closed(source)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Apply nothing within this block; frames wait, within limits, and are applied after it."""
        self._replays.pause()
        for subscriber in self._subscribers.values():
            subscriber.pause()
        self.router.unfinished.finish()
        try:
            yield
        finally:
            self._replays.resume()
            for subscriber in self._subscribers.values():
                subscriber.resume()

    async def resync_pod(self, pod: str) -> list[tuple[Worker, bool]]:
        """See `FrameRouter.resync_pod`; waits for the end of a pause."""
        await self._replays.wait_until_running()
        return self.router.resync_pod(pod)

    # What the subscribers report; see `MessageHandler`

    def on_message(self, source: Source, parts: list[bytes], connection: int) -> None:
        """A message has come through `connection`."""
        if self.recorders:
            self.recorders.record(source.endpoint, parts)
        self.router.route(source, parts, connection)

    @property
    def is_busy(self) -> bool:
        """Whether a long frame was begun: what comes after it waits."""
        return bool(self.router.unfinished)

    def on_connected(self, source: Source, connection: int) -> None:
        """A connection was made."""
        self.router.on_connected(source, connection)
        self.on_source_connected(source)

    def on_disconnected(self, source: Source, connection: int) -> None:
        """A connection was lost."""
        self.router.on_disconnected(source, connection)

    def on_connections_refused(self, source: Source, reason: str, count: int) -> None:
        """Connections to a bound endpoint were closed."""
        self.router.on_connections_refused(source, reason, count)

    def _peer_of(self, source: Source, connection: int) -> str:
        subscriber = self._subscribers.get(source)
        return "" if subscriber is None else subscriber.peer_of(connection)

    def _reconnect(self, source: Source) -> None:
        subscriber = self._subscribers.get(source)
        if subscriber is not None:
            subscriber.reconnect()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                for subscriber in list(self._subscribers.values()):
                    subscriber.close_overfull()
                self.router.tick(time.monotonic())
            except Exception:  # noqa: BLE001 - time goes on
                _log.exception("tick_failed")


def _make_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context for as many sources as there may be pods."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, context.get(zmq.SOCKET_LIMIT))
    return context


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
