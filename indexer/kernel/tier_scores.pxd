# The C face of tier_scores.py, for the other compiled modules.
cimport cython

@cython.final
cdef class TierScores:
    cdef Py_ssize_t tier_count
    cdef double[::1] weights
    cdef unsigned char[::1] same
    cdef unsigned char[::1] order
    cdef unsigned char[::1] best
    cdef object _given
    cdef long long[::1] _counts
    cdef bint use(self, object weights)
    cdef void reserve(self, Py_ssize_t cells)
    cdef void release(self)
    cdef double score(self, unsigned int[::1] ends, Py_ssize_t worker, Py_ssize_t worker_count, Py_ssize_t last, Py_ssize_t tiers, Py_ssize_t ratio) noexcept
