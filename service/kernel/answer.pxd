# The C face of answer.py.
cimport cython

@cython.final
cdef class Answer:
    cdef object _writer
    cdef object _status_of
    cdef object _now
    cdef object _form
    cdef Py_ssize_t _block_size
    cdef double _weight
    cdef dict _speculative
    cdef list _parts
    cdef Py_ssize_t _entries
    cdef public list unknown
    cdef public list unknown_ranks
    cdef Py_ssize_t _longest
    cdef object _trusted
    cdef list _best
    cdef double _best_score
    cdef bint _promises
    cdef list _workers
    cdef list _reusable
    cdef list _held
    cdef bytearray _exact
    cdef unsigned int[::1] _matched
    cdef double[::1] _scores
    cdef Py_ssize_t _ratio
    cdef list _choose(self, ranks_of, pods, named)
    cdef _best_rank(self, ranks)
    cdef list _best_of(self, list ranks, Py_ssize_t most)
    cdef double _score_of(self, rank)
    cdef Py_ssize_t _extra(self, rank, Py_ssize_t blocks)
    cdef bytes _ending(self, Py_ssize_t reusable, bint is_bound, double score, Py_ssize_t extra)
    cdef _add(self, worker, Py_ssize_t matched, bytes counts, bytes ending, double score, Py_ssize_t reusable, bint is_bound)
