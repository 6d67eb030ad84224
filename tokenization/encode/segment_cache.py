"""Ids of texts, with those of segments that have been seen before taken from a cache.

The concatenation is what the whole text would give: see `cuts`.
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

_ENTRY_BYTES = 256  # besides text and ids
_LARGEST = 8  # a segment of more than this part of the cache is not kept


@dataclass
class SegmentCounts:
    """Segments found in the cache, and encoded because they were not; characters of each."""

    found: int = 0
    encoded: int = 0
    characters_found: int = 0
    characters_encoded: int = 0


class SegmentCache:
    """Encodes with `encoder`, in any thread. most_bytes: of the cache. used: bytes of it in use."""

    def __init__(self, encoder: Encoder, cuts: SplitPoints, most_bytes: int) -> None:
        self._encoder = encoder
        self.cuts = cuts
        self._most = most_bytes
        self.used = 0
        self.counts = SegmentCounts()
        self._known: OrderedDict[str, Ids[int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._known)

    def ids(self, text: str) -> Ids[int]:
        """The ids of `text`, without special tokens that a tokenizer would add."""
        if not self.cuts or not self._most:
            (whole,) = self._encoder.ids_of([text])
            return whole
        parts = self.cuts.apart(text)
        known = self._look_up(parts)
        missing = list(dict.fromkeys(part for part in parts if part not in known))
        if missing:
            known.update(zip(missing, self._encoder.ids_of(missing), strict=True))
            self._keep({part: known[part] for part in missing})
        return array("I", b"".join(known[part].tobytes() for part in parts))

    def _look_up(self, parts: list[str]) -> dict[str, Ids[int]]:
        found: dict[str, Ids[int]] = {}
        counts = self.counts
        with self._lock:
            for part in parts:
                ids = self._known.get(part)
                if ids is None:
                    counts.encoded += 1
                    counts.characters_encoded += len(part)
                else:
                    self._known.move_to_end(part)
                    found[part] = ids
                    counts.found += 1
                    counts.characters_found += len(part)
        return found

    def _keep(self, new: dict[str, Ids[int]]) -> None:
        with self._lock:
            for part, ids in new.items():
                size = _size(part, ids)
                if size > self._most // _LARGEST or part in self._known:
                    continue
                self._known[part] = ids
                self.used += size
            while self.used > self._most:
                self.used -= _size(*self._known.popitem(last=False))


def _size(part: str, ids: Ids[int]) -> int:
    return _ENTRY_BYTES + part.__sizeof__() + 4 * len(ids)
