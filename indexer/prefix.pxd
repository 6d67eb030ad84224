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

cdef Py_ssize_t _rounded(Py_ssize_t blocks, Py_ssize_t step) noexcept
cdef Py_ssize_t _lcm(Py_ssize_t a, Py_ssize_t b) noexcept
