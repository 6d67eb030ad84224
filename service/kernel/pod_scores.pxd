# The C face of pod_scores.py.
cimport cython

@cython.final
cdef class PodScoreWriter:
    cdef dict _trust_states
    cdef dict _known
    cpdef tuple known(self, worker, status)

@cython.final
cdef class Answer:
    cdef PodScoreWriter _writer
    cdef object _status_of
    cdef object _now
    cdef Py_ssize_t _block_size
    cdef list _parts
    cdef public list unknown
    cdef Py_ssize_t _longest
    cdef object _trusted
    cdef _add(self, worker, Py_ssize_t matched, bytes counts, bytes ending)
