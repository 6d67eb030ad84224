"""What is known of a generation that is not needed any more."""

from __future__ import annotations

from dataclasses import dataclass

import msgpack

from store.errors import decoding
from store.records import checks as check

_GARBAGE_BYTES = 1024**2


@dataclass(frozen=True)
class Garbage:
    """A generation that is not needed any more, as scripts pack it in every version."""

    generation: str
    home: int
    """Home shard of the worker that had it."""
    model: str
    bits: dict[str, int]
    """Label -> bit."""
    registry: str
    reusable: bool
    """Whether the bits can be allocated again."""
    since: int
    """Seconds since 1970, by the store's clock."""

    @classmethod
    def unpack(cls, generation: str, blob: bytes, home: int) -> Garbage:
        """Return what a script packed."""
        with decoding("garbage"):
            if len(blob) > _GARBAGE_BYTES:
                raise ValueError(f"{len(blob)} bytes")
            _, model, packed, reusable, since = msgpack.unpackb(
                blob, raw=True, strict_map_key=False
            )
            registry, bits = labels_of(packed)
            model, reusable = check.text(model.decode()), bool(reusable)
            return cls(
                check.text(generation, 64),
                home,
                model,
                bits,
                registry,
                reusable,
                check.whole(since),
            )

    @staticmethod
    def pack_unknown() -> bytes:
        """Return the value for a generation of which only the pages are known."""
        packed: bytes = msgpack.packb(["", "", "", False, 0], use_bin_type=False)
        return packed


def labels_of(packed: bytes | None) -> tuple[str, dict[str, int]]:
    """Return the registry and the bits of a generation, by label. Raises ValueError and others."""
    if not packed:
        return "", {}
    registry, bits = check.unpack(packed, _GARBAGE_BYTES)
    return check.text(registry, 64), check.mapping(bits, check.MAX_BIT, check.text, check.bit)
