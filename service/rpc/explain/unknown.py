"""Requested pods that are not known for the model: what they may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1.explain_pb2 import UnknownPod

from service.explaining.words import listed, short
from service.rpc.near_names import near_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from indexer import Worker
    from service.rpc.bounds import LongWork

MOST_UNKNOWN = 16
_MOST_SIMILAR = 3


async def unknown_pods(
    names: Sequence[str], model: str, workers: Iterable[tuple[Worker, str]], work: LongWork
) -> list[UnknownPod]:
    """Return what unknown pods may be; of many the first ones.

    names: the requested ones. model: that they are not known for. workers: all, with their models.
    """
    if not names:
        return []
    serves: dict[str, set[str]] = {}
    for worker, served in workers:
        serves.setdefault(worker.pod, set()).add(served)
    known = [pod for pod, models in serves.items() if model in models] or [*serves]
    found = []
    for name in names[:MOST_UNKNOWN]:
        others = serves.get(name, set()) - {model}
        found.append(_unknown(name, min(others, default=""), known))
        await work.pause()
    return found


def _unknown(pod: str, other: str, known: Sequence[str]) -> UnknownPod:
    """other: a model that a pod of this name serves, if any does."""
    similar = [] if other else _similar(pod, known)
    if other:
        summary = f"It serves model {short(other)!r}, and not this one."
    elif similar:
        summary = (
            f"Its events come under another name, if it is one of: {listed(similar)}. Names have "
            "to be equal, port included: see pod_names of the source."
        )
    else:
        summary = "No event has come from a pod of this name, and none is configured."
    return UnknownPod(
        pod=short(pod), similar=map(short, similar), serves_model=short(other), summary=summary
    )


def _similar(pod: str, known: Sequence[str]) -> list[str]:
    """Return the names of the same host, or else those that are spelled alike."""
    same = [each for each in known if _host(each) == _host(pod)][:_MOST_SIMILAR]
    return same or near_names(pod, known, _MOST_SIMILAR)


def _host(pod: str) -> str:
    return pod.rpartition(":")[0] or pod
