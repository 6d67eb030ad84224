"""Token ids of texts, with those of segments that were seen before taken from a cache.

The ids of a text's segments, one after the other, are the ids of the text: see `split_points`.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenization.encode.encoders import Encoder, Ids
    from tokenization.encode.split_points import SplitPoints

_ENTRY_BYTES = 256  # memory of an entry besides its text and ids
_MAX_FRACTION = 8  # a segment larger than an eighth of the cache is not kept


@dataclass
class SegmentCounts:
    """Counts of segments, by whether the cache had them."""

    found: int = 0
    """Segments that were in the cache."""
    encoded: int = 0
    """Segments that were not, and were encoded."""
    characters_found: int = 0
    characters_encoded: int = 0


class SegmentCache:
    """Encodes texts segment by segment; threads may share it.

    Args:
        encoder: encodes the segments that the cache does not have.
        split_points: where texts are split; the cache is off if there are none.
        max_bytes: size of the cache, 0 to turn it off.

    Attributes:
        used: bytes of the cache that are in use.
        counts: of segments since the start.
    """

    def __init__(self, encoder: Encoder, split_points: SplitPoints, max_bytes: int) -> None:
        self.split_points = split_points
        self.used = 0
        self.counts = SegmentCounts()
        self._encoder = encoder
        self._max_bytes = max_bytes
        self._segments: OrderedDict[str, Ids[int]] = OrderedDict()  # least recently used first
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._segments)

    def ids(self, text: str) -> Ids[int]:
        """Return the token ids of a text, without special tokens that a tokenizer would add."""
        if not self.split_points or not self._max_bytes:
            (whole,) = self._encoder.ids_of([text])
            return whole
        segments = self.split_points.split(text)
        ids = self._cached(segments)
        # The lock is free while the encoder works: another thread may encode the same segments.
        missing = list(dict.fromkeys(segment for segment in segments if segment not in ids))
        if missing:
            ids.update(zip(missing, self._encoder.ids_of(missing), strict=True))
            self._keep({segment: ids[segment] for segment in missing})
        return array("I", b"".join(ids[segment].tobytes() for segment in segments))

    def _cached(self, segments: list[str]) -> dict[str, Ids[int]]:
        """Return the ids of the segments that the cache has, and count all segments."""
        cached: dict[str, Ids[int]] = {}
        counts = self.counts
        with self._lock:
            for segment in segments:
                ids = self._segments.get(segment)
                if ids is None:
                    counts.encoded += 1
                    counts.characters_encoded += len(segment)
                else:
                    self._segments.move_to_end(segment)
                    cached[segment] = ids
                    counts.found += 1
                    counts.characters_found += len(segment)
        return cached

    def _keep(self, encoded: dict[str, Ids[int]]) -> None:
        """Add segments to the cache and evict the least recently used beyond its size."""
        with self._lock:
            for segment, ids in encoded.items():
                size = _size(segment, ids)
                if size > self._max_bytes // _MAX_FRACTION or segment in self._segments:
                    continue
                self._segments[segment] = ids
                self.used += size
            while self.used > self._max_bytes:
                self.used -= _size(*self._segments.popitem(last=False))


def _size(segment: str, ids: Ids[int]) -> int:
    return _ENTRY_BYTES + segment.__sizeof__() + 4 * len(ids)
