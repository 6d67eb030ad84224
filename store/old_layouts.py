"""A layout of an older version is dropped from the store once nobody uses it any more.

Replicas of two versions work side by side, each with keys of its own, while one replaces the other.
What the older ones had is found by their workers' records, never by looking through all keys.
"""

from __future__ import annotations

import numpy as np

from indexer import model_scope
from store.garbage import wipe_generation
from store.layout import worker_name
from store.store import Store

_ANY_LEASE = 60.0  # longer than any lease that makes sense


async def older_versions(store: Store) -> list[Store]:
    """The stores of older versions in the same namespace. Raises StoreError."""
    versions = await store.register_layout()
    return [
        Store(store.server, store.layout.namespace, version, shards)
        for version, shards in versions.items()
        if version < store.layout.version
    ]


async def remove_layout(old: Store) -> bool:
    """Drop everything of `old`, unless one of its replicas is live. Raises StoreError."""
    if await old.heartbeat("", _ANY_LEASE):
        return False
    bulletins = await old.shard_statuses()
    models = set()
    for home, bulletin in enumerate(bulletins):
        for standing in bulletin.records.values():
            slots = np.array(list(standing.places), dtype="<u4").tobytes()
            scope = model_scope(standing.model)
            await wipe_generation(old, home, standing.generation, scope, slots, standing.registry)
            models.add(standing.model)
            await old.call("drop", home, f"w:{worker_name(standing.worker)}")
        for garbage in bulletin.garbage:
            slots = np.array(list(garbage.bits.values()), dtype="<u4").tobytes()
            scope = model_scope(garbage.model)
            await wipe_generation(old, home, garbage.generation, scope, slots, garbage.registry)
            models.add(garbage.model)
    names = [
        "workers",
        "reports",
        "wishes",
        "journal",
        "garbage",
        "applied",
        "replicas",
        "registry",
    ]
    names += [f"{kind}:{model}" for model in models for kind in ("slots", "taken")]
    for shard in range(old.layout.shards):
        await old.call("drop", shard, *names)
    await old.forget_layout()
    return True
