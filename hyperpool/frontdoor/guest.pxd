cimport cython

from hyperpool.auth.proof cimport ScramProof
from hyperpool.frontdoor.handshake cimport EncryptingConnection
from hyperpool.frontdoor.precedents cimport Precedent, Precedents


cdef class Guest(EncryptingConnection):
    cdef object _door
    cdef object _login
    cdef Precedent _precedent
    cdef ScramProof _proof
    cdef Py_ssize_t _age
    cdef bint _declined
    cdef bint _waiting
    cdef object _awaited
    cdef str _late
    cdef public bint local
    cdef public bint wants_console
    cdef public bint owner
    cdef public str replication
    cdef public tuple key
    cdef public tuple place
    cdef public object requested
    cdef public object private
    cdef public object claim

    @cython.locals(precedents=Precedents, precedent=Precedent)
    cdef _take(self, bytes data)

    cdef _enter_like(self, Precedent precedent)

    @cython.locals(precedents=Precedents, precedent=Precedent)
    cdef _prove(self, ScramProof proof, bytes data)

    @cython.locals(key=tuple)
    cdef _admitted_as(self, Precedent precedent, bytes pending)

    cdef _become(
        self, object pool, object tracked, tuple key, bytes welcome, bytes received, object greet, str user
    )
