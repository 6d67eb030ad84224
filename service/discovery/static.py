"""Pods that the configuration names: they are always there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from typing_extensions import override

from service.discovery.pods import DiscoveredPod, Discovery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence


class StaticPods(Discovery):
    """Args: urls: of the pods."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls

    @property
    @override
    def name(self) -> str:
        return "static"

    @override
    async def run(self, found: Callable[[Collection[DiscoveredPod]], None]) -> None:
        found([DiscoveredPod(url) for url in self._urls])
        await asyncio.Event().wait()
