"""The discovered pods: those whom anybody tells of, each kept until nobody tells of it any more."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog

from service.discovery.keeper import PodKeeper
from service.discovery.metrics import DiscoveryCollector
from service.discovery.pods import DiscoveryError
from service.discovery.registered import RegisteredPods
from service.discovery.served_names import served_names
from service.discovery.states import PodState
from service.engines import EngineHttp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

    from prometheus_client.registry import Collector

    from kvevents import Listener, Source
    from service.config import DiscoverySection
    from service.diagnostics import Finding
    from service.discovery.pods import DiscoveredPod, Discovery
    from service.engines import Expectations
    from service.loops import Loops

_TIDY_SECONDS = 2.0  # between two attempts to forget a pod that is gone; the second one counts
_GONE_SECONDS = 600.0  # for so long what others still claim of such a pod is forgotten

_log = structlog.get_logger("kvatlas.discovery")


class _Kept(NamedTuple):
    keeper: PodKeeper
    task: asyncio.Task[None]


class DiscoveredFleet:
    """Knows which pods there are, and keeps each of them.

    Args:
        discoveries: those who tell of pods; of two who tell of the same one, the first is believed.
        loops: runs them.
        section: the configuration of discovery.
        listener: listens to the pods' events.
        forget_pod: forgets a pod that is gone; returns whether nobody claims anything of it now.
        expected: what the configuration says, which engines may contradict.
        most_pods: how many pods there may be; further ones are refused.
        note_origin: takes a model, and where an engine says it has it from.

    Attributes:
        states: of each pod, by its address.
        asked: how often engines were asked, by what came of it.
        refused: pods that were refused, because there were too many.
    """

    def __init__(
        self,
        discoveries: Sequence[Discovery],
        loops: Loops,
        section: DiscoverySection,
        listener: Listener,
        forget_pod: Callable[[str], Awaitable[bool]],
        expected: Expectations,
        most_pods: int,
        note_origin: Callable[[str, str], None],
    ) -> None:
        self.states: dict[str, PodState] = {}
        self.asked: Counter[str] = Counter()
        self.refused = 0
        self.served_names: dict[str, tuple[str, str]] = {}
        """Other names by which engines serve a model -> the model, and the adapter or ""."""
        self.names_left_out = 0
        """Such names that mean different things on different pods, or are too many."""
        self._discoveries = discoveries
        self.registered = next((d for d in discoveries if isinstance(d, RegisteredPods)), None)
        """Where pods are registered; None if they cannot be."""
        self._loops = loops
        self._section = section
        self._listener = listener
        self._forget_pod = forget_pod
        self._expected = expected
        self._most_pods = most_pods
        self._note_origin = note_origin
        self._told: dict[str, dict[str, DiscoveredPod]] = {}
        self._kept: dict[str, _Kept] = {}
        self._gone: dict[str, float] = {}
        self._refused: set[str] = set()
        self._forgets = True
        """Whether the last attempt to forget a pod succeeded."""
        self._changed = asyncio.Event()
        self._http: EngineHttp | None = None
        self._leaving: dict[str, asyncio.Task[None]] = {}

    @property
    def discoveries(self) -> list[str]:
        """The names of those who discover pods."""
        return [discovery.name for discovery in self._discoveries]

    @property
    def told(self) -> Mapping[str, Collection[str]]:
        """By the name of each discovery that has told: the addresses of its pods."""
        return {name: pods.keys() for name, pods in self._told.items()}

    def collectors(self) -> Iterator[Collector]:
        """The metrics of discovery."""
        yield DiscoveryCollector(self)
        for discovery in self._discoveries:
            yield from discovery.collectors()

    def findings(self) -> Iterator[Finding]:
        """What looks wrong with the pods' engines."""
        for state in list(self.states.values()):
            yield from state.findings

    # Life cycle

    async def start(self) -> None:
        """Learn what pods there are and ask them, for as long as the configuration allows.

        Raises DiscoveryError.
        """
        if not self._discoveries:
            return
        section = self._section
        try:
            self._http = EngineHttp(section.timeout_seconds, section.token_file, section.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise DiscoveryError(f"discovery.ca_file: {error}") from error
        self._listener.on_source_connected = self._on_connected
        self._listener.on_source_lost = self._on_lost
        for discovery in self._discoveries:
            found = partial(self._on_found, discovery.name)
            self._loops.start(f"discover {discovery.name}", partial(discovery.run, found))
        self._loops.start("tidy discovered pods", self._tidy)
        try:
            async with asyncio.timeout(section.ready_seconds):
                while not self._is_complete():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            waiting = [state.pod.address for state in self.states.values() if not state.is_known]
            silent = [d.name for d in self._discoveries if d.name not in self._told]
            _log.warning("not_all_discovered", pods=waiting[:8], discoveries=silent)
        self._learn_names()

    def on_listening(self) -> None:
        """The listener has started: what could not be listened to is tried again."""
        for kept in self._kept.values():
            kept.keeper.on_listening()

    def _is_complete(self) -> bool:
        have_told = len(self._told) == len(self._discoveries)
        return have_told and all(state.is_known for state in self.states.values())

    async def stop(self) -> None:
        """Ask nobody any more. What is known stays known, and what is listened to as well."""
        if self._http is None:
            return
        names = [f"discover {discovery.name}" for discovery in self._discoveries]
        await self._loops.stop("tidy discovered pods", *names)
        tasks = [*(kept.task for kept in self._kept.values()), *self._leaving.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._http.close()
        self._http = None

    # Pods come and go

    def _on_found(self, name: str, pods: Collection[DiscoveredPod]) -> None:
        self._told[name] = {pod.address: pod for pod in pods}
        self._update()

    def _update(self) -> None:
        found: dict[str, tuple[DiscoveredPod, list[str]]] = {}
        for discovery in self._discoveries:
            for address, pod in self._told.get(discovery.name, {}).items():
                found.setdefault(address, (pod, []))[1].append(discovery.name)
        for address in [address for address in self.states if address not in found]:
            self._leave(address)
        self._refused &= found.keys()
        for address, (pod, by) in found.items():
            self._keep(address, pod, tuple(by))
        self._changed.set()

    def _keep(self, address: str, pod: DiscoveredPod, by: tuple[str, ...]) -> None:
        state = self.states.get(address)
        if state is not None:
            has_changed, state.pod, state.by = state.pod != pod, pod, by
            if has_changed:
                self._kept[address].keeper.on_changed()
            return
        if len(self.states) >= self._most_pods:
            self._refuse(address)
            return
        self._refused.discard(address)
        assert self._http is not None  # noqa: S101 - discoveries run only then
        self._gone.pop(address, None)
        state = self.states[address] = PodState(pod, by)
        keeper = PodKeeper(
            state,
            self._http,
            self._listener,
            self._expected,
            self._section.ask_seconds,
            self.asked,
            self._changed.set,
        )
        run = keeper.run(after=self._leaving.get(address))
        task = asyncio.create_task(run, name=f"keep {address}")
        self._kept[address] = _Kept(keeper, task)
        _log.info("pod_discovered", pod=address, by=by, name=pod.name, node=pod.node)

    def _refuse(self, address: str) -> None:
        if address in self._refused:
            return
        if not self._refused:
            detail = f"{self._most_pods} pods are known: no more are allowed (events.pods)"
            _log.warning("too_many_pods", pod=address, detail=detail)
        self._refused.add(address)
        self.refused += 1

    def _leave(self, address: str) -> None:
        del self.states[address]
        kept = self._kept.pop(address)
        kept.task.cancel()
        self._gone[address] = time.monotonic() + _GONE_SECONDS
        leaving = self._forget(address, kept, self._leaving.get(address))
        self._leaving[address] = asyncio.create_task(leaving, name=f"leave {address}")
        self._leaving[address].add_done_callback(partial(self._on_left, address))
        _log.info("pod_gone", pod=address)

    async def _forget(self, address: str, kept: _Kept, before: asyncio.Task[None] | None) -> None:
        await asyncio.wait([task for task in (kept.task, before) if task is not None])
        await kept.keeper.leave()
        await self._forget_now(address)

    def _on_left(self, address: str, task: asyncio.Task[None]) -> None:
        if self._leaving.get(address) is task:
            del self._leaving[address]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("pod_not_left", pod=address, exc_info=error)

    def _learn_names(self) -> None:
        """Take in under which names engines serve their models, and where they have them from."""
        found = served_names(self.states.values())
        self.served_names.clear()
        self.served_names.update(found.meanings)
        if found.left_out and not self.names_left_out:
            _log.warning("served_names_left_out", names=found.left_out)
        self.names_left_out = found.left_out
        for state in self.states.values():
            if state.facts is not None:
                self._note_origin(state.pod.model or state.facts.models[0], state.facts.root)

    async def _tidy(self) -> None:
        """Forget what is still claimed of pods that are gone, such as by a replica that died."""
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            self._learn_names()
            for address in list(self._gone):
                await self._forget_if_gone(address)

    async def _forget_if_gone(self, address: str) -> None:
        until = self._gone.get(address)
        if await self._forget_now(address) or (until is not None and time.monotonic() > until):
            self._gone.pop(address, None)

    async def _forget_now(self, address: str) -> bool:
        """Forget a pod unless it is back; returns whether nobody claims anything of it now."""
        if address not in self._gone:
            return False
        try:
            is_forgotten = await self._forget_pod(address)
        except Exception as error:  # noqa: BLE001 - such as a store that does not answer
            if self._forgets:
                _log.warning("pod_not_forgotten", pod=address, detail=str(error))
            self._forgets = False
            return False
        self._forgets = True
        return is_forgotten

    def _on_connected(self, source: Source) -> None:
        if (kept := self._kept.get(source.pod)) is not None:
            kept.keeper.on_connected(source)

    def _on_lost(self, source: Source) -> None:
        if (kept := self._kept.get(source.pod)) is not None:
            kept.keeper.on_lost(source)
