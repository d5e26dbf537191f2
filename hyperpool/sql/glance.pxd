cdef class Glance:
    cdef unsigned int _keys[128]
    cdef signed char _kinds[128]
    cdef unsigned char _spots[256]
    cdef unsigned char _first[256]
    cdef unsigned char _second[256]
    cdef unsigned char _third[256]
    cdef list _patterns
    cdef bint _ascii_only
    cdef bint _never
    cdef _add(self, bytes pattern, int meaning)
    cdef int _met(self, const unsigned char *at, Py_ssize_t left) except -1
    cdef int _closer(self, const unsigned char *at, Py_ssize_t left) except -1
    cpdef bint passes(self, object text, Py_ssize_t start, Py_ssize_t end) except -1
