"""An explanation as a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1.explain_pb2 import (
    ExplainedPod,
    ExplainResponse,
    Step,
    Suspect,
)
from kvatlas.v1.fleet_pb2 import FleetWarning

from service.explaining import overview, pod_overview
from service.rpc.explain.ranks import explained_rank
from service.rpc.explain.unknown import MOST_UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from service.diagnostics import Finding
    from service.explaining import ExplainedPod as Pod
    from service.explaining import Explanation
    from service.explaining import Suspect as Suspected

_MOST_PODS = 32  # of a suspect or a warning


def answer_of(explanation: Explanation, findings: Iterable[Finding]) -> ExplainResponse:
    """Return the answer, without prompt, unknown pods, unused fields and steps."""
    model = explanation.asked.model
    return ExplainResponse(
        summary=overview(explanation),
        pods=map(_pod, explanation.pods),
        pods_left_out=explanation.pods_left_out,
        suspects=map(_suspect, explanation.suspects),
        warnings=[_warning(finding) for finding in findings if finding.model == model],
        copy_behind_seconds=explanation.copy_behind_seconds,
        is_cut=len(explanation.unknown) > MOST_UNKNOWN or explanation.pods_left_out > 0,
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
