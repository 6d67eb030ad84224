"""Keeps one pod: asks its engine what it is, again when it comes back, and listens to it."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from kvevents import Source, SubscribeError
from service.discovery.dns import addresses_of
from service.engines import EngineAnswerError, ask_engine, sources_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from kvevents import Listener
    from service.discovery.states import PodState
    from service.engines import EngineFacts, EngineHttp, Expectations, PodSources, RankSource

_FIRST_RETRY, _LAST_RETRY = 1.0, 10.0
_RECONNECTED_SECONDS = 1.0  # an engine that comes back publishes before it serves

_log = structlog.get_logger("kvatlas.discovery")


class PodKeeper:
    """Keeps one pod, in a task of its own.

    Args:
        state: of the pod; this writes it.
        http: asks engines.
        listener: listens to their events.
        expected: what the configuration says.
        ask_seconds: how often an engine that was not lost is asked anew.
        asked: counts answers, by result.
        on_asked: called when the engine was asked, whatever came of it.
    """

    def __init__(
        self,
        state: PodState,
        http: EngineHttp,
        listener: Listener,
        expected: Expectations,
        ask_seconds: float,
        asked: Counter[str],
        on_asked: Callable[[], None],
    ) -> None:
        self.state = state
        self._http = http
        self._listener = listener
        self._expected = expected
        self._ask_seconds = ask_seconds
        self._asked = asked
        self._on_asked = on_asked
        self._wake = asyncio.Event()
        self._connected: set[Source] = set()
        self._lost: set[Source] = set()
        self._configured: set[Source] = set()
        """Sources of this pod that the configuration names, too."""
        self._listening: asyncio.Task[EngineAnswerError | None] | None = None
        self._logged: EngineFacts | None = None

    def on_changed(self) -> None:
        """The pod has changed: act on it."""
        for source in (*self.state.sources.values(), *self._configured):
            self._listener.router.expected.set_ready(source, self.state.pod.is_ready)
        self._wake.set()

    def on_listening(self) -> None:
        """The listener has started: what could not be listened to is tried again."""
        if not all(map(self._listener.is_listening_to, self.state.sources.values())):
            self._wake.set()

    def on_connected(self, source: Source) -> None:
        """A connection to one of its sources was made; the second one may be to another engine."""
        if source in self._connected:
            self._wake.set()
        self._connected.add(source)
        self._lost.discard(source)

    def on_lost(self, source: Source) -> None:
        """The connection to one of its sources was lost: another engine may come, elsewhere."""
        self._lost.add(source)
        self._wake.set()

    async def run(self, after: asyncio.Task[None] | None = None) -> None:
        """Keep the pod until this is cancelled.

        after: forgets an earlier pod of this address; it is waited for.
        """
        if after is not None:
            await asyncio.wait([after])
        retry = _FIRST_RETRY
        while True:
            self._wake.clear()
            if not self.state.pod.is_ready:
                await self._wake.wait()
            elif await self._ask():
                retry = _FIRST_RETRY
                lost = self._lost.intersection(self.state.sources.values())
                await self._sleep(
                    min(self._ask_seconds, _LAST_RETRY) if lost else self._ask_seconds
                )
            else:
                await self._sleep(retry)
                retry = min(2 * retry, _LAST_RETRY)

    async def _sleep(self, seconds: float) -> None:
        """Sleep for about so long; a pod that has changed or come back is asked sooner."""
        try:
            await asyncio.wait_for(self._wake.wait(), seconds * random.uniform(0.8, 1.2))  # noqa: S311
        except TimeoutError:
            return
        await asyncio.sleep(_RECONNECTED_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311

    async def _ask(self) -> bool:
        """Ask the engine, and listen to what it tells; returns whether it has answered."""
        pod = self.state.pod
        try:
            facts = await ask_engine(self._http, pod.url)
            addresses = await addresses_of(urlsplit(pod.url).hostname or "")
            expected = self._expected._replace(model=pod.model, rank=pod.rank)
            await self._follow(facts, sources_of(pod.url, facts, addresses, expected))
            self._succeed(facts)
        except EngineAnswerError as error:
            self._fail(error.why, str(error))
        except OSError as error:
            self._fail("unreachable", str(error))
        except Exception as error:  # noqa: BLE001 - a stranger's answer; the others go on
            _log.exception("engine_not_understood", pod=pod.address)
            self._fail("malformed", f"{type(error).__name__} while its answer was read")
        self.state.asked += 1
        self._on_asked()
        return not self.state.failure

    def _fail(self, why: str, detail: str) -> None:
        self._asked[why] += 1
        if not self.state.failure:
            _log.warning("engine_not_asked", pod=self.state.pod.address, why=why, detail=detail)
        self.state.failure = detail

    def _succeed(self, facts: EngineFacts) -> None:
        self._asked["answered"] += 1
        if self.state.failure or facts != self._logged:
            _log.info(
                "engine_asked",
                pod=self.state.pod.address,
                engine=f"{facts.engine} {facts.version}",
                models=facts.models[:4],
                ranks=len(facts.publishers),
            )
        self._logged, self.state.failure = facts, ""

    async def _follow(self, facts: EngineFacts, found: PodSources) -> None:
        """Listen to the sources that were found, and to no others of this pod.

        Raises EngineAnswerError if one of them cannot be listened to.
        """
        self.state.facts, self.state.findings = facts, found.findings
        # Whoever ends this keeper must not end it between two sockets.
        self._listening = asyncio.ensure_future(self._listen_to(found.ranks))
        if (failure := await asyncio.shield(self._listening)) is not None:
            raise failure

    def _discover(self, configured: set[Source]) -> None:
        """What is said of this pod holds for these sources, and not for others any more."""
        set_ready = self._listener.router.expected.set_ready
        for source in self._configured - configured:
            set_ready(source, None)
        for source in configured:
            set_ready(source, self.state.pod.is_ready)
        self._configured = configured

    async def _listen_to(self, ranks: tuple[RankSource, ...]) -> EngineAnswerError | None:
        """Returns why not all can be listened to."""
        sources, failure = self.state.sources, None
        for rank in [rank for rank in sources if rank not in ranks]:
            await self._remove(rank)
        others = {source.endpoint: source for source in self._listener.sources}
        known = [others[rank.endpoint] for rank in ranks if rank.endpoint in others]
        self._discover({source for source in known if not (source.is_discovered or source.bind)})
        for rank in ranks:
            if rank not in sources and (other := others.get(rank.endpoint)) is not None:
                if other.is_discovered:  # else it is configured: one subscription is enough
                    detail = f"{rank.endpoint} is listened to already, as that of {other.pod}"
                    failure = EngineAnswerError("endpoint_taken", detail)
                continue
            source = sources.setdefault(rank, Source(**rank._asdict(), is_discovered=True))
            self._listener.router.expected.set_ready(source, self.state.pod.is_ready)
            try:
                await self._listener.add_source(source)
            except SubscribeError as error:
                await self._remove(rank)
                failure = EngineAnswerError("not_subscribed", str(error))
        return failure

    async def _remove(self, rank: RankSource) -> None:
        source = self.state.sources.pop(rank)
        self._connected.discard(source)
        self._lost.discard(source)
        await self._listener.remove_source(source)

    async def leave(self) -> None:
        """The pod is gone, and `run` has ended: listen to none of its sources any more."""
        if self._listening is not None:
            await asyncio.wait([self._listening])
        self._discover(set())
        for rank in list(self.state.sources):
            await self._remove(rank)
