"""The picture of `kvatlas top`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from service.cli.screen.answers import counts, trust
from service.cli.screen.tables import Part, Table, picture
from service.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvatlas.v1 import fleet_pb2
    from rich.console import RenderableType

    from service.cli.calling.measures import Histogram, Measures

_MIB = 1024 * 1024


class Sample(NamedTuple):
    """The fleet at one moment."""

    address: str
    """Of the service's administration."""
    taken_at: float
    """By the monotonic clock, in seconds."""
    fleet: fleet_pb2.ListPodsResponse
    measures: Measures | None
    why_not: str
    """Why there are no measures."""

    def ranks(self) -> Iterator[tuple[fleet_pb2.Pod, fleet_pb2.Rank]]:
        """Every rank with its pod."""
        for pod in self.fleet.pods:
            for rank in pod.ranks:
                yield pod, rank


class TopPicture:
    """What is shown: the newest sample, and what has happened since the one before it.

    Args:
        rows: ranks to show, at most; None: as many as fit.
    """

    def __init__(self, rows: int | None) -> None:
        self._rows = rows
        self._before: Sample | None = None
        self._now: Sample | None = None
        self._failure = ""

    def add(self, sample: Sample) -> None:
        """Show this sample from now on."""
        self._before, self._now, self._failure = self._now, sample, ""

    def failed(self, why: str) -> None:
        """Go on showing the last sample, and why there is no newer one."""
        self._failure = why

    def rendered(self, width: int, height: int) -> RenderableType:
        """The picture for a terminal of this size."""
        summary = self._summary()
        parts = [*summary, self._table(height - len(summary) - 2)]
        return picture(*(_cut(part, width) for part in parts), room=width)

    def parts(self) -> list[Part]:
        """The picture for any output."""
        return [*self._summary(), self._table(None)]

    def _summary(self) -> list[Part]:
        now = self._sample()
        states: Counter[str] = Counter()
        blocks: Counter[str] = Counter()
        for _, rank in now.ranks():
            states[trust(rank.trust_state, "")] += 1
            blocks.update(rank.blocks_by_tier)
        version = now.measures.version if now.measures else ""
        pods = len({pod.pod for pod in now.fleet.pods})
        lines = [
            f"kvatlas {version} at {now.address}: {pods} pods, {states.total()} ranks",
            f"trust    {counts(states)}",
            f"blocks   {counts(blocks)}",
            *self._measured(now),
            *(f"warning: {w.kind}: {w.model}: {w.detail}" for w in now.fleet.warnings),
        ]
        if self._failure:
            lines.append(f"no newer picture: {self._failure}")
        return [*map(printable, lines), ""]

    def _measured(self, now: Sample) -> Iterator[str]:
        measures = now.measures
        if measures is None:
            yield f"no rates and latencies: {now.why_not}"
            return
        before = self._before.measures if self._before is not None else None
        frames, scores, lag = measures.frames, measures.scores, measures.lag
        if before is None or measures.frames < before.frames:  # it has just started
            yield f"events   {frames:,.0f} frames so far   lag {_quantiles(lag)}"
            yield f"scores   {scores.total:,} so far   {_quantiles(scores)}"
        else:
            seconds = max(measures.read_at - before.read_at, 1e-9)
            rate = (frames - before.frames) / seconds
            yield f"events   {rate:,.1f} frames/s   lag {_quantiles(lag.since(before.lag))}"
            scored = scores.since(before.scores)
            under_way = f"{measures.scores_under_way:,.0f} under way"
            yield f"scores   {scored.total / seconds:,.1f}/s   {_quantiles(scored)}   {under_way}"
        yield (
            f"index    {measures.index_bytes / _MIB:,.1f} MiB of "
            f"{measures.index_limit_bytes / _MIB:,.0f} MiB"
        )

    def _table(self, room: int | None) -> Table:
        now, frames_before = self._sample(), self._frames_before()
        table = Table(
            *("POD", "RANK", "MODEL", "TRUST", "BLOCKS", "FRAMES/S", "LAST EVENT", "MISSED"),
            folded=("MODEL", "TRUST", "BLOCKS"),
            trust="TRUST",
        )
        rows = self._rows if room is None else min(self._rows or room, max(room, 1))
        ranks = sorted(now.ranks(), key=lambda pair: (_is_exact(pair[1]), -_frames(pair[1])))
        for pod, rank in ranks[:rows]:
            before = frames_before.get((pod.pod, pod.model, rank.rank))
            rate = "-"
            if before is not None and self._before is not None:
                seconds = max(now.taken_at - self._before.taken_at, 1e-9)
                rate = f"{max(0, _frames(rank) - before) / seconds:,.1f}"
            has_events = rank.HasField("last_event_age_seconds")
            table.add(
                pod.pod,
                str(rank.rank),
                pod.model,
                trust(rank.trust_state, rank.trust_reason),
                counts(rank.blocks_by_tier),
                rate,
                f"{rank.last_event_age_seconds:.1f}s ago" if has_events else "never",
                str(rank.missed_frames),
            )
        return table

    def _frames_before(self) -> dict[tuple[str, str, int], int]:
        if self._before is None:
            return {}
        return {(p.pod, p.model, r.rank): _frames(r) for p, r in self._before.ranks()}

    def _sample(self) -> Sample:
        assert self._now is not None, "a sample is added first"  # noqa: S101
        return self._now


def _is_exact(rank: fleet_pb2.Rank) -> bool:
    return trust(rank.trust_state, "") == "exact"


def _frames(rank: fleet_pb2.Rank) -> int:
    return rank.live_frames + rank.replayed_frames


def _quantiles(histogram: Histogram) -> str:
    if not histogram.total:
        return "-"
    return "  ".join(
        f"p{share * 100:g} {_duration(histogram.quantile(share))}" for share in (0.5, 0.99)
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "beyond measure"
    return f"{seconds * 1000:.2f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _cut(part: Part, width: int) -> Part:
    return part[:width] if isinstance(part, str) else part
