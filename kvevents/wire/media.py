"""Media as engines name them -> tiers as the index does."""

from __future__ import annotations

GPU_TIER = "gpu"
_ALIASES = {
    "cpu_pinned": "cpu",
    "cpu_tier1": "cpu",
    "cpu_tier2": "cpu",
    "nvme": "disk",
    "storage": "shared_storage",
    "fs": "shared_storage",
    "obj": "object_store",
}


def tier_of(medium: str | None) -> str:
    """The tier of an event's medium, whatever its case; the GPU where none is given."""
    if not medium:
        return GPU_TIER
    tier = medium.lower()
    return _ALIASES.get(tier, tier)
