"""What the commands about discovered pods show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.cli.screen.tables import Table
from service.terminal import printable

if TYPE_CHECKING:
    from kvatlas.v1 import discovery_pb2

    from service.cli.screen.tables import Part


def discovered(answer: discovery_pb2.ListDiscoveredPodsResponse) -> list[Part]:
    """A row for each pod, a line for each discovery, and one for each pod that does not answer."""
    table = Table(
        *("POD", "BY", "READY", "ENGINE", "MODELS", "BLOCK", "RANKS", "ROLES", "NODE"),
        folded=("BY", "MODELS", "ROLES"),
    )
    for pod in answer.pods:
        engine = pod.engine
        table.add(
            pod.pod,
            ", ".join(pod.discovered_by),
            "yes" if pod.ready else "no",
            f"{engine.engine} {engine.version}".strip() or "?",
            ", ".join(engine.models),
            str(engine.block_size) if engine.HasField("block_size") else "",
            str(len(engine.publishers)) if pod.HasField("engine") else "",
            ", ".join(pod.roles),
            pod.node,
        )
    if not answer.discoveries:
        return ["nobody discovers pods: kvatlas serve --pod, and [discovery] in the configuration"]
    lines = [
        f"{each.name}: {f'{each.pods} pods' if each.HasField('pods') else 'has not told yet'}"
        for each in answer.discoveries
    ]
    failures = [f"{pod.pod} was not asked: {pod.failure}" for pod in answer.pods if pod.failure]
    return [*([table] if answer.pods else []), *map(printable, [*lines, *failures])]
