cimport cython

from hyperpool.relay.loop cimport Relay


cdef class Doorstep:
    cdef public Relay relay
    cdef public object pools
    cdef public Py_ssize_t most
    cdef public double timeout
    cdef public object console
    cdef public object places
    cdef public object traced
    cdef public double closed_at

    cpdef bint lets_in(self, object guest) except -1
    @cython.locals(taken=Py_ssize_t)
    cpdef bint has_seat(self) except -1
    @cython.locals(found=dict)
    cpdef bint leads(self, object guest, tuple place, object pool) except -1
