# The C face of table_storage.py, for the other compiled modules.
from indexer.kernel.reclaim cimport EvictionRanks, Sweep
from indexer.kernel.holder_sets cimport HolderSets
from indexer.kernel.holders cimport Holders, Refcounts
from indexer.kernel.segment cimport Segment, hash_of, segment_of

cdef class TableStorage:
    cdef list _blocks
    cdef list _mappings
    cdef readonly HolderSets sets
    cdef public Py_ssize_t limit_bytes
    cdef readonly Py_ssize_t slot_bytes
    cdef readonly Py_ssize_t block_count
    cdef readonly Py_ssize_t mapping_count
    cdef readonly object evicted_blocks
    cdef readonly object evicted_mappings
    cdef readonly bint count_copies
    cdef readonly list evicted_holders
    cdef public bint log_evictions
    cdef readonly list eviction_log
    cdef Holders _holders
    cdef readonly EvictionRanks ranks
    cdef Refcounts _copy_counts
    cdef Refcounts _hash_counts
    cdef Sweep _sweep
    cdef Py_ssize_t _next_to_shed
    cdef void _count_slot_bytes(self)
    cdef Py_ssize_t _insert(self, Segment segment, unsigned long long name, unsigned int number)
    cdef bint _add_block_holder(self, unsigned long long key, unsigned int holder, bint new_hash)
    cdef void _remove_block_holder(self, unsigned long long key, unsigned int holder)
    cdef void _make_room(self, Segment segment)
    cdef void _evict(self, Segment segment, Py_ssize_t offset)
    cdef Py_ssize_t _bytes(self) noexcept
    cdef void _begin_event(self, Py_ssize_t stored)
    cdef void _shed(self, Py_ssize_t stored)
    cdef void _evict_oldest(self, Segment segment)
