"""A stream as plain values, for a snapshot or for the worker's next owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from indexer import TrustState
from kvevents.wire import TierClass

if TYPE_CHECKING:
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


def check_dump(dumped: Any) -> None:
    """Check that `WorkerStream.restore` can take a dumped stream, which anybody may have changed.

    Raises KeyError, TypeError or ValueError if it cannot.
    """
    pod, rank = dumped["worker"]
    _check(pod, str)
    _check(rank, int)
    for fields, types in ((dumped, _FIELDS), (dumped["life"], _FIELDS_OF_A_LIFE)):
        for name, allowed in types.items():
            _check(fields[name], *allowed)
    for sequence, fingerprint in dumped["life"]["seen"]:
        _check(sequence, int)
        _check(fingerprint, int)
    _check(dumped["tiers"], list)
    for tier in dumped["tiers"]:
        _check(tier, str)
    doubts = dumped["doubts"]
    if len(doubts) != len(TierClass):
        raise ValueError(f"there are {len(doubts)} doubts for {len(TierClass)} classes of tiers")
    for state, reason, recoverable in filter(None, doubts):
        TrustState(state)
        _check(reason, str)
        _check(recoverable, bool)


def _check(value: Any, *types: type) -> None:
    if type(value) not in types:  # a bool is no integer here
        raise TypeError(f"{value!r:.40} is of a wrong type")
