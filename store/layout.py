"""The keys of the store: what it keeps, and under which name. Layout version 3.

Every key begins with `namespace:version:{shard}:`. One server has one shard. A cluster has sixteen:
keys of one shard lie on one primary, and every primary has some shards.

    at a worker's home shard
      w:<worker>             hash: epoch (fences former owners), owner, model, generation, revision,
                             state (what the next owner needs), bits (to be cleared at the end)
      p:<generation>:<page>  hash: name -> rows of 16 bytes, see `indexer.kernel.rows`; 1,024 pages
      workers                hash: worker -> record, for replicas without a copy
      reports                hash: worker -> report, renewed every second
      requests               hash: worker -> what an operator or a replica asks of its owner
      journal                stream: what was written, newest last, bounded
      garbage                hash: generation -> whose it was, and its bits
    at the shard of each block
      b<registry><8 bytes>   bitmap: the bit of each holder that holds the block
      applied                hash: worker -> stamp (epoch:revision) of what was last written here
    at shard 0
      replicas               hash: identity of a replica -> milliseconds at its last heartbeat
      leaving                hash: identity of a replica that is about to release its workers, or
                             has left in the last minute
      registry               name of the allocation of bits; another one once that was lost
      bits:<model>           hash: generation:holder id -> bit
      taken_bits:<model>     bitmap: the bits that are allocated
      registered             hash: pod -> who it is, as it was registered
      routings               stream: what replicas tell each other about routed requests, bounded

`namespace:layout` is a hash of all versions ever used there: version -> number of shards.
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

VERSION = 3
PAGES = 1024
CLUSTER_SHARDS = 16
JOURNAL_ENTRIES = 2000  # kept by each shard, fewer where they are long
ROUTING_ENTRIES = 500  # of 64 KiB at most
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # engine hashes may be 1, 2, 3, ...


@dataclass(frozen=True)
class Layout:
    """Names the keys of one version in one namespace."""

    namespace: str
    shards: int
    version: int = VERSION

    @property
    def versions_key(self) -> str:
        """Key of the hash of all versions."""
        return f"{self.namespace}:layout"

    def prefix(self, shard: int) -> str:
        """Return what every key of a shard begins with."""
        return f"{self.namespace}:{self.version}:{{{shard}}}:"

    def home(self, worker: Worker) -> int:
        """Return the shard of everything that belongs to a worker, besides its bits."""
        digest = blake2b(worker_name(worker).encode(), digest_size=4).digest()
        return int.from_bytes(digest, "little") % self.shards

    def record_key(self, worker: Worker) -> str:
        """Return the key of a worker's own hash."""
        return f"{self.prefix(self.home(worker))}w:{worker_name(worker)}"

    def shards_of(self, blocks: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return the shard of each block, given the blocks' names."""
        return (blocks >> np.uint64(48)) % np.uint64(self.shards)


def worker_name(worker: Worker) -> str:
    """Return the name of a worker in the store."""
    return f"{worker.pod}/{worker.rank}"


def block_names(keys: array[int], scope: int) -> NDArray[np.uint64]:
    """Return the names of blocks; the scope keeps the blocks of different models apart."""
    return np.frombuffer(keys, dtype=np.uint64) ^ np.uint64(scope)


def pages_of(names: array[int]) -> bytes:
    """Return the page of each engine hash, two bytes each."""
    mixed = np.frombuffer(names, dtype=np.uint64) * _SPREAD
    return (mixed >> np.uint64(54)).astype("<u2").tobytes()
