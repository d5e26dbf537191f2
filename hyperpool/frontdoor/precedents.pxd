cimport cython

from hyperpool.auth.proof cimport ScramProof
from hyperpool.frontdoor.doorstep cimport Doorstep
from hyperpool.pool.places cimport Places
from hyperpool.relay.parameters cimport ParameterSet


cdef class Precedent:
    cdef bytes _ending
    cdef object _verifier
    cdef public Py_ssize_t age
    cdef public object base
    cdef public object claim
    cdef public bytes greeting
    cdef public object message
    cdef public bytes offer
    cdef public bytes packet
    cdef public tuple place
    cdef public Places pool
    cdef public object reported
    cdef public Py_ssize_t secret_length
    cdef public object shown
    cdef public bint teaches
    cdef public ParameterSet tracked

    cpdef ScramProof proof(self)


cdef class Precedents:
    cdef public Py_ssize_t age
    cdef dict _asked
    cdef Doorstep _door
    cdef dict _found

    @cython.locals(precedent=Precedent)
    cpdef Precedent find(self, object guest, bytes opening)

    cpdef bint holds(self, object guest, Precedent precedent) except -1
