# The C face of pod_scores.py.
cimport cython

@cython.final
cdef class PodScoreWriter:
    cdef dict _trust_states
    cdef dict _known
    cpdef tuple known(self, worker, status)
