"""Holds answers against what the pods held, and counts them, phase by phase."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT, TRUST_STATE_PARTIAL, TrustState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rollout.callers import Call, Entry
    from rollout.pods import Life

SETTLED_SECONDS = 3.0
"""After its first frame a pod is to be known everywhere."""
FORGOTTEN_SECONDS = 8.0
"""After it was listed for the last time a pod is to be forgotten everywhere, also by a replica that
learns first that the pod's owner has crashed."""
_PAUSE_SECONDS = 1.0  # answers that are not exact, and no further apart, are one stretch


class Phase(NamedTuple):
    """A part of the run, by `time.monotonic`."""

    name: str
    begun: float
    ended: float
    longest_stall: float
    """For how many seconds the callers' process was held up."""
    connections: list[int]
    """At its end: of each replica, the clients that are connected to it."""
    longest_behind: float
    """For how many seconds an exact answer may know nothing of a frame."""


@dataclass
class Verdict:
    """What one phase shows.

    Attributes:
        milliseconds: of each call that was answered, sorted.
        failed: calls without an answer, by error.
        repeated: attempts that the client that repeats calls itself has repeated.
        states: by whether a pod has a replay socket: its entries, by trust state and reason.
        wrong: entries that are not what the pod held as of the frame they name.
        missing: pods that an answer does not know, although they hold something.
        outdated: exact entries as of a moment that is too long over.
        lingering: entries of pods that are gone.
        behind_seconds: the age of the oldest exact entry.
        not_exact_seconds: the longest time for which a pod was not exact.
    """

    phase: Phase
    milliseconds: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    states: dict[bool, Counter[str]] = field(
        default_factory=lambda: {True: Counter(), False: Counter()}
    )
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    lingering: list[str] = field(default_factory=list)
    behind_seconds: float = 0.0
    not_exact_seconds: float = 0.0

    @property
    def unmarked(self) -> list[str]:
        """What callers were not told and could not know."""
        return self.missing + self.outdated + self.lingering

    def exact_share(self, has_replay: bool) -> float:
        """The share of exact entries; 1 of none."""
        states = self.states[has_replay]
        return states["exact"] / states.total() if states else 1.0

    def marks(self) -> str:
        """The entries that are not exact, by state and reason."""
        others = (self.states[True] + self.states[False]).most_common()
        return ", ".join(f"{count} {state}" for state, count in others if state != "exact")


class Judge:
    """Knows what each pod held after each of its frames.

    Args:
        held: of each pod: when each frame was published, and leading blocks of each prompt then.
        lives: of each pod: when it was listed.
    """

    def __init__(self, held: Mapping[str, Any], lives: Mapping[str, Life]) -> None:
        self._published = {pod: told["published_at"] for pod, told in held.items()}
        self._blocks = {
            pod: [bytes.fromhex(row) for row in told["blocks"]] for pod, told in held.items()
        }
        self._lives = lives

    def judge(
        self, phases: Iterable[Phase], calls: Iterable[Call], repeated: Iterable[float]
    ) -> list[Verdict]:
        """Judge every call in the phase in which it began; none from before the first."""
        verdicts = [Verdict(phase) for phase in phases]
        begins = [verdict.phase.begun for verdict in verdicts]
        not_exact: dict[tuple[int, str], list[float]] = defaultdict(list)
        for call in sorted(calls, key=lambda call: call.begun):
            if (number := bisect_left(begins, call.begun) - 1) < 0:
                continue
            verdict = verdicts[number]
            if call.error:
                verdict.failed[f"{call.kind}: {call.error}"] += 1
                continue
            verdict.milliseconds.append(1000 * (call.ended - call.begun))
            for pod in self._judge_call(verdict, call):
                not_exact[number, pod].append(call.begun)
        for moment in repeated:
            if (number := bisect_left(begins, moment) - 1) >= 0:
                verdicts[number].repeated += 1
        for (number, _), moments in not_exact.items():
            verdict = verdicts[number]
            verdict.not_exact_seconds = max(verdict.not_exact_seconds, _longest(moments))
        for verdict in verdicts:
            verdict.milliseconds.sort()
        return verdicts

    def _judge_call(self, verdict: Verdict, call: Call) -> list[str]:
        """Judge what an answer says of each pod: those that are settled and not exact."""
        not_exact = []
        for pod, life in self._lives.items():
            entry = call.entries.get(pod)
            if entry is not None:
                self._check(verdict, call, pod, entry)
                if call.begun > life.unlisted_at + FORGOTTEN_SECONDS:
                    gone = call.begun - life.unlisted_at
                    verdict.lingering.append(f"{pod} is gone for {gone:.1f} s: {entry}")
            published = self._published[pod]
            if not published or published[0] + SETTLED_SECONDS > call.begun:
                continue
            if call.ended > life.unlisted_at:
                continue
            if entry is None:
                verdict.missing.append(f"{pod} is missing")
                verdict.states[life.has_replay]["missing"] += 1
                continue
            name = TrustState.Name(entry.state).removeprefix("TRUST_STATE_").lower()
            shown = f"{name} ({entry.reason})" if entry.reason else name
            verdict.states[life.has_replay][shown] += 1
            if entry.state != TRUST_STATE_EXACT:
                not_exact.append(pod)
        return not_exact

    def _check(self, verdict: Verdict, call: Call, pod: str, entry: Entry) -> None:
        """An exact entry is that after the frame it names, a partial one is no higher."""
        if entry.state not in (TRUST_STATE_EXACT, TRUST_STATE_PARTIAL):
            return
        blocks, published = self._blocks[pod], self._published[pod]
        held = 0 if entry.as_of is None else blocks[entry.as_of][call.prompt]
        is_exact = entry.state == TRUST_STATE_EXACT
        if entry.matched > held or (is_exact and entry.matched < held):
            verdict.wrong.append(f"{pod} held {held} blocks as of {entry}")
        following = 0 if entry.as_of is None else entry.as_of + 1
        if is_exact and following < len(published):
            behind = call.begun - published[following]
            verdict.behind_seconds = max(verdict.behind_seconds, behind)
            if behind > verdict.phase.longest_behind:
                verdict.outdated.append(f"{pod} is {behind:.1f} s behind: {entry}")


def _longest(moments: list[float]) -> float:
    """The longest stretch of moments without a pause."""
    longest, begun, last = 0.0, moments[0], moments[0]
    for moment in moments:
        if moment - last > _PAUSE_SECONDS:
            begun = moment
        last = moment
        longest = max(longest, last - begun)
    return longest
