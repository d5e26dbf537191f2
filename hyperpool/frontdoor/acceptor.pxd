cimport cython

from hyperpool.relay.system cimport accept
from hyperpool.relay.transient cimport TransientConnection


cdef class Acceptor(TransientConnection):
    cdef object _handle
    cdef object _listener
    cdef bint _complained
    cdef public bint local

    @cython.locals(arrival=tuple)
    cpdef readable(self, long mask)
