"""What those who discover pods tell of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from prometheus_client.registry import Collector


class DiscoveryError(Exception):
    """Pods cannot be discovered as the configuration says."""


@dataclass(frozen=True)
class DiscoveredPod:
    """A model server that kvatlas may ask what it is. Pods are told apart by their `address`."""

    url: str
    """Where its API is served, without a path: http://10.0.0.1:8000 or https://[fd00::1]:8000."""
    is_ready: bool = True
    """Whether it takes requests. A pod that is not ready keeps its blocks, but is not asked."""
    model: str = ""
    """The model it serves; empty: it is asked."""
    roles: frozenset[str] = frozenset()
    """Such as prefill and decode."""
    node: str = ""
    """The node that it runs on."""
    name: str = ""
    """What people call it, such as namespace/pod."""
    rank: int | None = None
    """The data-parallel rank that it is, if it is one rank of an engine; None: it is asked."""

    @property
    def address(self) -> str:
        """`host:port` of its API: the pod's name in scores."""
        return self.url.partition("://")[2]


class Discovery(Protocol):
    """Someone who knows which pods there are."""

    @property
    def name(self) -> str:
        """Such as `kubernetes`: for logs and metrics."""
        ...

    def collectors(self) -> Iterator[Collector]:
        """Metrics of its own."""
        return iter(())

    async def run(self, found: Callable[[Collection[DiscoveredPod]], None]) -> None:
        """Tell of all pods at once, whenever one comes, changes or goes. Ends only if cancelled.

        As long as it is not known which pods there are (no answer yet, or none any more), nothing
        is told: what was told last stays in force. An empty collection means that there are none.

        Args:
            found: takes all pods that there are; what it took before is void.
        """
        ...
