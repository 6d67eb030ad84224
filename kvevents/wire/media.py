"""Storage media as engines name them -> tiers as the index names them, and their classes."""

from __future__ import annotations

from enum import IntEnum

GPU_TIER = "gpu"
CPU_TIER = "cpu"
_ALIASES = {
    "cpu_pinned": CPU_TIER,
    "cpu_tier1": CPU_TIER,
    "cpu_tier2": CPU_TIER,
    "nvme": "disk",
    "storage": "shared_storage",
    "fs": "shared_storage",
    "obj": "object_store",
}


_KNOWN_TIERS = frozenset((GPU_TIER, *_ALIASES.values()))


def is_known(tier: str) -> bool:
    """Whether engines are known to have such a tier."""
    return tier in _KNOWN_TIERS


def tier_of(medium: str | None) -> str:
    """The tier of an event's medium, in any case of letters; the GPU if the event names none."""
    if not medium:
        return GPU_TIER
    tier = medium.lower()
    return _ALIASES.get(tier, tier)


class TierClass(IntEnum):
    """Tiers by when they lose their contents."""

    GPU = 0
    """With every reset of the engine's prefix cache."""
    MEMORY = 1
    """With the engine's process."""
    STORAGE = 2
    """With neither: it outlives the engine."""


ALL_TIER_CLASSES = tuple(TierClass)
_CLASSES = {GPU_TIER: TierClass.GPU, CPU_TIER: TierClass.MEMORY}


def class_of(tier: str) -> TierClass:
    """The class of a tier; an unknown tier is assumed to outlive the engine."""
    return _CLASSES.get(tier, TierClass.STORAGE)
