"""What is known of one discovered pod."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvevents import Source
    from service.diagnostics import Finding
    from service.discovery.pods import DiscoveredPod
    from service.engines import EngineFacts, RankSource


@dataclass
class PodState:
    """One discovered pod, and what its engine has told."""

    pod: DiscoveredPod
    by: tuple[str, ...]
    """The names of those who tell of it."""
    facts: EngineFacts | None = None
    """As the engine told them last; None: it has not answered yet."""
    failure: str = ""
    """Why its engine could not be asked the last time; empty if it could."""
    asked: int = 0
    """How often its engine was asked."""
    sources: dict[RankSource, Source] = field(default_factory=dict)
    """What is listened to."""
    findings: tuple[Finding, ...] = ()
    """What looks wrong with its engine."""

    @property
    def word(self) -> str:
        """Where its engine stands, in one word."""
        if not self.pod.is_ready:
            return "not_ready"
        if self.failure:
            return "failed"
        return "waiting" if self.facts is None else "asked"

    @property
    def is_known(self) -> bool:
        """Whether the engine was asked, or need not be."""
        return self.asked > 0 or not self.pod.is_ready
