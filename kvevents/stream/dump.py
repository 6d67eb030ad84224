"""A stream as plain values, for a snapshot or for the worker's next owner."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from indexer import TrustState
from kvevents.wire import TierClass

if TYPE_CHECKING:
    from indexer import Worker
    from kvevents.stream.worker import WorkerStream


def dump_stream(stream: WorkerStream) -> dict[str, Any] | None:
    """What `WorkerStream.restore` takes; None if nobody could go on with the stream."""
    if stream.source is None or not stream.sequencer.has_started or stream.is_applying:
        return None
    return {
        "worker": tuple(stream.worker),
        "model": stream.model,
        "endpoint": stream.source.endpoint,
        "life": stream.sequencer.incarnation.dump(),
        "doubts": stream.trust.dump(),
        "orphans": bool(stream.applier.orphans),
        "tiers": list(stream.applier.named_tiers),
        "gpu_stores": stream.trust.classes.gpu_stores,
    }


def has_every_frame(stream: WorkerStream) -> bool:
    """Whether a stream is connected, and awaits nothing that was published before."""
    is_waiting = bool(stream.trust.recovering or stream.sequencer.buffered)
    return stream.is_connected and not (stream.rivals or is_waiting or stream.is_applying)


_FIELDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "endpoint": (str,),
    "orphans": (bool,),
    "gpu_stores": (int,),
}
_FIELDS_OF_A_LIFE: dict[str, tuple[type, ...]] = {
    "last": (int,),
    "newest": (float, int),
    "epoch": (bytes,),
    "birth": (int, type(None)),
}


def check_dump(dumped: Any, worker: Worker | None = None, model: str | None = None) -> None:
    """Check that `WorkerStream.restore` can take a dumped stream, which anybody may have changed.

    Args:
        dumped: the stream.
        worker, model: what it must be the stream of; None for any.

    Raises KeyError, TypeError or ValueError if it cannot.
    """
    pod, rank = dumped["worker"]
    _check(pod, str)
    _check(rank, int)
    for fields, types in ((dumped, _FIELDS), (dumped["life"], _FIELDS_OF_A_LIFE)):
        for name, allowed in types.items():
            _check(fields[name], *allowed)
    _check_numbers(dumped)
    _check(dumped["tiers"], list)
    for tier in dumped["tiers"]:
        _check(tier, str)
    doubts = dumped["doubts"]
    if len(doubts) != len(TierClass):
        raise ValueError(f"there are {len(doubts)} doubts for {len(TierClass)} classes of tiers")
    for state, reason, recoverable in (doubt for doubt in doubts if doubt is not None):
        TrustState(state)
        _check(reason, str)
        _check(recoverable, bool)
    if worker not in (None, (pod, rank)) or model not in (None, dumped["model"]):
        raise ValueError("this is the dump of another stream")


def _check_numbers(dumped: Any) -> None:
    life = dumped["life"]
    numbers = [life["last"], *(number for pair in life["seen"] for number in pair)]
    if life["birth"] is not None:
        numbers.append(life["birth"])
    for number in numbers:
        _check(number, int)
    is_time = isfinite(life["newest"])
    if not is_time or not all(-1 <= number < 2**64 for number in numbers):
        raise ValueError("a sequence number, a fingerprint or a time is none")
    if not all(len(pair) == 2 for pair in life["seen"]) or not 0 <= dumped["gpu_stores"] < 2**63:
        raise ValueError("what a dump counts is no count")


def _check(value: Any, *types: type) -> None:
    if type(value) not in types:  # a bool is no integer here
        raise TypeError(f"{value!r:.40} is of a wrong type")
