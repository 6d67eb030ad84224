# Types for the compiled form of prefix.py.
cimport cython
from indexer.kernel.tier_scores cimport TierScores
from indexer.kernel.worker_plans cimport WorkerPlans

@cython.final
cdef class PrefixWalk:
    cdef WorkerPlans _plans
    cdef TierScores _scores
    # Of one walk.
    cdef unsigned int[::1] _matched
    cdef unsigned int[::1] _by_tier
    cdef unsigned int[::1] _open_ends
    cdef unsigned int[::1] _ends
    cdef Py_ssize_t _blocks
    cdef Py_ssize_t _limit
    cdef unsigned int[::1] _stretch_ends
    cdef Py_ssize_t _stretches
    cdef unsigned long long _stamp
    cdef unsigned long long _first_stamp
    cdef bint _any_matched
    # Of one stretch.
    cdef Py_ssize_t _start
    cdef Py_ssize_t _end
    cdef Py_ssize_t _row
    cdef unsigned int[::1] _active
    cdef Py_ssize_t _active_count
    cdef unsigned long long[::1] _stamps
    cdef unsigned int[::1] _held
    cdef unsigned int[::1] _tier_held
    cdef void _split_into_stretches(self, unsigned int[::1] numbers, tuple chunks)
    cdef void _reserve(self, Py_ssize_t worker_count)
    cdef void _visit_stretches(self, unsigned int[::1] numbers, list sets, tuple chunks, Py_ssize_t worker_count)
    cdef void _mark_held(self, unsigned int[::1] holders, unsigned int chunk) noexcept
    cdef void _activate(self, Py_ssize_t worker) noexcept
    cdef void _evaluate(self, Py_ssize_t worker) noexcept
    cdef void _evaluate_tiers(self, Py_ssize_t worker, unsigned int main) noexcept
    cdef void _finish(self, double[::1] scores, Py_ssize_t worker_count, Py_ssize_t ratio) noexcept

cdef Py_ssize_t _rounded(Py_ssize_t blocks, Py_ssize_t step) noexcept
