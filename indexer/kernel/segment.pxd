# The C face of segment.py, for the other compiled modules.
cimport cython
from cpython.array cimport array
from indexer.kernel.holder_sets cimport HolderSets

cdef extern from *:
    """
    /* Fetches, to write to it, the cache line at `offset` words and the next one. */
    static inline void prefetch_lines(unsigned long long *words, Py_ssize_t offset, Py_ssize_t size) {
    #if defined(__GNUC__) || defined(__clang__)
        __builtin_prefetch(words + offset, 1);
        if (offset + 8 < size) __builtin_prefetch(words + offset + 8, 1);
    #endif
    }
    """
    void prefetch_lines(unsigned long long *words, Py_ssize_t offset, Py_ssize_t size) noexcept

cpdef unsigned long long hash_of(unsigned long long name) noexcept
cpdef Py_ssize_t segment_of(unsigned long long name) noexcept

# The items of an `array('Q')`, without the cost of a memoryview, which is that of a few blocks.
cdef inline unsigned long long *items_of(array values) except? NULL:
    if values.ob_descr.typecode != c'Q':
        raise ValueError("an array of unsigned 64-bit integers was expected")
    return values.data.as_ulonglongs

@cython.final
cdef class Segment:
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t width
    cdef readonly bint has_keys
    cdef Py_ssize_t slots
    cdef readonly Py_ssize_t used
    cdef unsigned long long[::1] words
    cdef unsigned long long _missed
    cdef Py_ssize_t _vacant
    cdef Py_ssize_t find(self, unsigned long long name) noexcept
    cdef Py_ssize_t find_hashed(self, unsigned long long name, unsigned long long hashed) noexcept
    cdef Py_ssize_t find_next(self, unsigned long long name, Py_ssize_t offset) noexcept
    cdef Py_ssize_t _search(self, unsigned long long name, Py_ssize_t offset) noexcept
    cdef Py_ssize_t _after(self, Py_ssize_t offset) noexcept
    cdef unsigned int holder_set_at(self, Py_ssize_t offset) noexcept
    cdef unsigned int age_at(self, Py_ssize_t offset) noexcept
    cdef unsigned int span_at(self, Py_ssize_t offset) noexcept
    cdef void widen(self, Py_ssize_t offset, unsigned long long span) noexcept
    cdef void assign(self, Py_ssize_t offset, unsigned int number, HolderSets sets) noexcept
    cdef void touch(self, Py_ssize_t offset, unsigned long long epoch) noexcept
    cdef void prefetch(self, unsigned long long hashed) noexcept
    cdef Py_ssize_t insert(self, unsigned long long name, unsigned int number, unsigned long long epoch) noexcept
    cdef Py_ssize_t _free_slot(self, unsigned long long name) noexcept
    cdef bint is_full(self) noexcept
    cdef Py_ssize_t growth(self) noexcept
    cdef void grow(self)
    cdef void _move_to(self, Py_ssize_t slots)
    cdef void delete(self, Py_ssize_t offset) noexcept
