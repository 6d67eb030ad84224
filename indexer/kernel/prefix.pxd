# Types for the compiled form of prefix.py.
cdef class PrefixWalk:
    cdef int[::1] _workers
    cdef unsigned char[::1] _tiers
    cdef unsigned int[::1] _bits
    cdef unsigned int[::1] _chunks
    cdef unsigned char[::1] _plain
    cdef unsigned int[::1] _main
    cdef unsigned int[::1] _main_block
    cdef unsigned int[::1] _align
    cdef unsigned int[::1] _dropped
    cdef unsigned char[::1] _rule_count
    cdef unsigned char[::1] _attention
    cdef unsigned int[::1] _mask
    cdef unsigned int[::1] _block
    cdef unsigned int[::1] _reach
    cdef unsigned long long _segment_stamp
    cdef unsigned long long _first_stamp
    cdef Py_ssize_t _tier_count
    cdef Py_ssize_t _tiers_used
    cdef object _weighed
    cdef double[::1] _weights
    cdef unsigned char[::1] _same
    cdef unsigned char[::1] _order
    cdef long long[::1] _counts
    cdef unsigned int[::1] _segment_ends
    cdef Py_ssize_t _segments
    cdef unsigned int[::1] _matched
    cdef unsigned int[::1] _by_tier
    cdef unsigned int[::1] _open_ends
    cdef unsigned int[::1] _ends
    cdef unsigned char[::1] _best
    cdef unsigned int[::1] _active
    cdef Py_ssize_t _active_count
    cdef unsigned long long[::1] _stamps
    cdef unsigned int[::1] _held
    cdef unsigned int[::1] _tier_held
    cdef int[::1] _runs
    cdef Py_ssize_t _segment
    cdef Py_ssize_t _start
    cdef Py_ssize_t _end
    cdef Py_ssize_t _row
    cdef Py_ssize_t _blocks
    cdef Py_ssize_t _limit
    cdef Py_ssize_t _low
    cdef Py_ssize_t _step
    cdef bint _any_matched
    cdef void _sort_tiers(self, object weights)
    cdef void _reserve(self, Py_ssize_t worker_count)
    cdef void _split_into_segments(self, unsigned int[::1] numbers, tuple chunks)
    cdef void _mark_held(self, unsigned int[::1] holders, unsigned int chunk) noexcept
    cdef void _activate(self, Py_ssize_t worker) noexcept
    cdef void _evaluate(self, Py_ssize_t worker) noexcept
    cdef void _evaluate_tiers(self, Py_ssize_t worker, unsigned int main) noexcept
    cdef bint _allows(self, Py_ssize_t worker) noexcept
    cdef bint _break(self, Py_ssize_t rule, Py_ssize_t last, Py_ssize_t worker) noexcept
    cdef void _finish(self, double[::1] scores, Py_ssize_t worker_count, Py_ssize_t ratio) noexcept
    cdef double _score(self, Py_ssize_t worker, Py_ssize_t worker_count, Py_ssize_t ratio) noexcept

cdef Py_ssize_t _rounded(Py_ssize_t blocks, Py_ssize_t step) noexcept
cdef Py_ssize_t _without_last(Py_ssize_t blocks, Py_ssize_t dropped, Py_ssize_t step) noexcept
cdef Py_ssize_t _lcm(Py_ssize_t a, Py_ssize_t b) noexcept
