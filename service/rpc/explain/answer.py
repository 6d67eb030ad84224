"""An explanation as a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1.explain_pb2 import (
    ExplainedPod,
    ExplainResponse,
    Step,
    Suspect,
    UnknownPod,
)
from kvatlas.v1.fleet_pb2 import FleetWarning

from service.explaining import overview, pod_overview
from service.explaining.words import listed, short
from service.rpc.explain.ranks import explained_rank
from service.rpc.near_names import near_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from indexer import Index
    from service.diagnostics import Finding
    from service.explaining import ExplainedPod as Pod
    from service.explaining import Explanation
    from service.explaining import Suspect as Suspected

_MOST_UNKNOWN = 64
_MOST_SIMILAR = 3
_MOST_PODS = 32  # of a suspect or a warning


def answer_of(
    explanation: Explanation, index: Index, findings: Iterable[Finding]
) -> ExplainResponse:
    """Return the answer, without prompt, unused fields and the first steps."""
    model, unknown = explanation.asked.model, explanation.unknown
    return ExplainResponse(
        summary=overview(explanation),
        pods=map(_pod, explanation.pods),
        pods_left_out=explanation.pods_left_out,
        unknown_pods=[_unknown(pod, model, index) for pod in unknown[:_MOST_UNKNOWN]],
        suspects=map(_suspect, explanation.suspects),
        warnings=[_warning(finding) for finding in findings if finding.model == model],
        copy_behind_seconds=explanation.copy_behind_seconds,
        is_cut=len(unknown) > _MOST_UNKNOWN or explanation.pods_left_out > 0,
    )


def steps_of(steps: Sequence[tuple[str, float]]) -> list[Step]:
    """Return how long each step took."""
    return [Step(step=name, microseconds=round(seconds * 1e6)) for name, seconds in steps]


def _pod(pod: Pod) -> ExplainedPod:
    return ExplainedPod(
        pod=pod.pod,
        best_rank=pod.ranks[0].facts.worker.rank,
        ranks=map(explained_rank, pod.ranks),
        ranks_left_out=pod.ranks_left_out,
        summary=pod_overview(pod),
    )


def _unknown(pod: str, model: str, index: Index) -> UnknownPod:
    models = (each for each in index.models() if each != model and pod in index.pods_of(each))
    other = next(models, "")
    similar = [] if other else _similar(pod, index.pods_of(model))
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


def _suspect(suspect: Suspected) -> Suspect:
    fields = suspect._asdict()
    pods = fields.pop("pods")
    return Suspect(**fields, pods=pods[:_MOST_PODS], pod_count=len(pods))


def _warning(finding: Finding) -> FleetWarning:
    return FleetWarning(
        kind=finding.kind,
        model=finding.model,
        pods=finding.pods[:_MOST_PODS],
        detail=finding.detail,
    )
