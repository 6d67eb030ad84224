"""Removes layouts of older versions once no replica uses them any more.

Replicas of two versions run side by side, each with keys of its own, while one replaces the other.
Records of older versions have other fields, so this module relies only on what has been the same in
every version: a worker's hash has its model and generation, pages and garbage have the same form,
and `bits` (`slots` before version 3) are the registry and the bits of a generation.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog

from indexer import model_scope
from store.errors import StoreError, decoding
from store.garbage import delete_generation
from store.records import Garbage, labels_of
from store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = structlog.get_logger("kvatlas.store")

_ANY_LEASE = 60.0  # longer than any lease that makes sense
_SHARD_KEYS = (
    *("workers", "reports", "requests", "wishes", "journal", "garbage", "applied"),
    *("replicas", "leaving", "registry", "registered", "routings"),
)
_MODEL_KEYS = ("bits", "taken_bits", "slots", "taken")


async def older_versions(store: Store) -> list[Store]:
    """Return the stores of older versions in the same namespace. Raises StoreError."""
    versions = await store.register_layout()
    return [
        Store(store.server, store.layout.namespace, version, shards)
        for version, shards in versions.items()
        if version < store.layout.version
    ]


async def remove_layout(old: Store) -> bool:
    """Delete everything of an older version. Raises StoreError.

    Returns False, and deletes nothing, if one of its replicas is live.
    """
    if (await old.heartbeat("", _ANY_LEASE)).live:
        return False
    models = set()
    for shard in range(old.layout.shards):
        prefix = old.layout.prefix(shard)
        for name, _ in _pairs(await old.server.execute("HGETALL", prefix + "workers")):
            key = prefix + "w:" + name.decode(errors="replace")
            with _without_malformed():
                garbage = await _generation_of(old, shard, key)
                if garbage is not None:
                    await _delete(old, garbage)
                    models.add(garbage.model)
            await old.server.execute("UNLINK", key)
        for generation, blob in _pairs(await old.server.execute("HGETALL", prefix + "garbage")):
            with _without_malformed():
                garbage = Garbage.unpack(generation.decode(errors="replace"), blob, shard)
                await _delete(old, garbage)
                models.add(garbage.model)
    names = [*_SHARD_KEYS, *(f"{kind}:{model}" for model in models for kind in _MODEL_KEYS)]
    for shard in range(old.layout.shards):
        first, *rest = (old.layout.prefix(shard) + name for name in names)
        await old.server.execute("UNLINK", first, *rest)
    await old.forget_layout()
    return True


async def _generation_of(old: Store, home: int, key: str) -> Garbage | None:
    """Return the generation in a worker's hash, as if it were garbage; None if it has none."""
    fields = ("generation", "model", "bits", "slots")
    generation, model, bits, slots = await old.server.execute("HMGET", key, *fields)
    if generation is None or model is None:
        return None
    with decoding("worker"):
        registry, labels = labels_of(bits or slots)
        return Garbage(
            generation=generation.decode(),
            home=home,
            model=model.decode(),
            bits=labels,
            registry=registry,
            reusable=False,
            since=0,
        )


@contextmanager
def _without_malformed() -> Iterator[None]:
    """Leave out what cannot be decoded: its pages stay, which nobody reads."""
    try:
        yield
    except StoreError as error:
        if error.kind != "malformed":
            raise
        _log.warning("value_malformed", what="older layout", detail=str(error))


async def _delete(old: Store, garbage: Garbage) -> None:
    scope, bits = model_scope(garbage.model), garbage.bits.values()
    home, generation = garbage.home, garbage.generation
    await delete_generation(old, home, generation, scope, bits, garbage.registry)


def _pairs(answer: Any) -> Iterator[tuple[bytes, bytes]]:
    """Return the fields and values of a hash: RESP3 answers with a mapping, RESP2 with a list."""
    if isinstance(answer, dict):
        return iter(answer.items())
    return zip(answer[::2], answer[1::2], strict=True)
