"""What the store keeps under which name. Layout version 1.

All names begin with `namespace:version:{shard}:`. On one server there is one shard, on a cluster
there are sixteen, so that what belongs together lies together and all primaries have some.

    at a worker's home shard
      w:<worker>             hash: epoch (fences former owners), owner, model, generation, revision,
                             state (what another owner needs), slots (to be wiped one day)
      p:<generation>:<page>  hash: name -> rows of 16 bytes, see `indexer.kernel.rows`; 1,024 pages
      workers                hash: worker -> standing, for whoever has no copy
      reports                hash: worker -> report, renewed every second
      wishes                 hash: worker -> what an operator wants of its owner
      journal                stream: what was written, newest last, bounded
      garbage                hash: generation -> whose it was, and its slots
    at the shard of each block
      b<registry><8 bytes>   string of bits, one for each slot that holds the block
      applied                hash: worker -> epoch:revision last written here
    at shard 0
      replicas               hash: replica, see `store.identity` -> milliseconds at its last beat
      registry               name of what is allotted here; another one if that was lost
      slots:<model>          hash: generation:seat -> slot (a bit's position); taken:<model> bits

`namespace:layout` tells of the versions that were ever used, and how many shards each has.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from array import array

    from numpy.typing import NDArray

    from indexer import Worker

VERSION = 2
PAGES = 1024
CLUSTER_SHARDS = 16
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # engine hashes may be 1, 2, 3, ...


@dataclass(frozen=True)
class Layout:
    """Where things are; see the module."""

    namespace: str
    shards: int
    version: int = VERSION

    def prefix(self, shard: int) -> str:
        """What the names of a shard begin with."""
        return f"{self.namespace}:{self.version}:{{{shard}}}:"

    def home(self, worker: Worker) -> int:
        """The shard of all that belongs to a worker but its bits."""
        digest = blake2b(worker_name(worker).encode(), digest_size=4).digest()
        return int.from_bytes(digest, "little") % self.shards

    def shards_of(self, blocks: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The shard of each block, by name."""
        return (blocks >> np.uint64(48)) % np.uint64(self.shards)


def worker_name(worker: Worker) -> str:
    """What a worker is called in the store."""
    return f"{worker.pod}/{worker.rank}"


def block_names(keys: array[int], scope: int) -> NDArray[np.uint64]:
    """Block keys -> names: those of one model are nobody else's."""
    return np.frombuffer(keys, dtype=np.uint64) ^ np.uint64(scope)


def pages_of(names: array[int]) -> bytes:
    """The page of each name, two bytes each."""
    mixed = np.frombuffer(names, dtype=np.uint64) * _SPREAD
    return (mixed >> np.uint64(54)).astype("<u2").tobytes()
