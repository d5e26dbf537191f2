cdef class Fronts


cdef class Front:
    cdef public tuple path
    cdef public object entry
    cdef public bytes prefix
    cdef public bint closes
    cdef public object unnamed
    cdef public Py_ssize_t size
    cdef public Fronts owner
    cdef Front _next
    cdef Py_hash_t _hash

    cpdef forget(self)


cdef class Fronts:
    cdef list _heads
    cdef Py_ssize_t _count

    cpdef Front find(self, object settings, object statement, bytearray buffer, Py_ssize_t at, Py_ssize_t end)
    cpdef bint put(self, Front front) except -1
    cpdef drop(self, Front front)
    cdef Front _found(self, object settings, object statement, const char *data, Py_ssize_t size, Py_hash_t code)
    cdef _grow(self)
