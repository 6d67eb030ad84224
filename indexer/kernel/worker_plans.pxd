# The C face of worker_plans.py, for the other compiled modules.
cimport cython

@cython.final
cdef class WorkerPlans:
    cdef int[::1] workers
    cdef unsigned char[::1] tiers
    cdef unsigned int[::1] bits
    cdef unsigned int[::1] chunks
    cdef Py_ssize_t tiers_used
    cdef unsigned char[::1] plain
    cdef unsigned int[::1] main
    cdef unsigned int[::1] main_block
    cdef unsigned int[::1] align
    cdef unsigned int[::1] dropped
    cdef unsigned char[::1] rule_count
    cdef unsigned char[::1] _attention
    cdef unsigned int[::1] _mask
    cdef unsigned int[::1] _block
    cdef unsigned int[::1] _reach
    cdef int[::1] _runs
    cdef Py_ssize_t low
    cdef Py_ssize_t step
    cdef void _make_room(self)
    cdef void begin_runs(self, Py_ssize_t worker) noexcept
    cdef bint allows(self, Py_ssize_t worker, unsigned int held, Py_ssize_t start) noexcept
    cdef void _update_runs(self, Py_ssize_t rule, Py_ssize_t last, unsigned int held, Py_ssize_t start) noexcept

cdef Py_ssize_t _rounded_up(Py_ssize_t blocks, Py_ssize_t step) noexcept
cdef Py_ssize_t _lcm(Py_ssize_t a, Py_ssize_t b) noexcept
