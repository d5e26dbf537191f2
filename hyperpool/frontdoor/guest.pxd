cimport cython

from hyperpool.auth.proof cimport ScramProof
from hyperpool.frontdoor.doorstep cimport Doorstep
from hyperpool.frontdoor.handshake cimport EncryptingConnection
from hyperpool.frontdoor.precedents cimport Precedent, Precedents
from hyperpool.pool.places cimport Places
from hyperpool.relay.handover cimport ClientReady
from hyperpool.relay.loop cimport Relay
from hyperpool.relay.parameters cimport ParameterSet
from hyperpool.wire.scan cimport part

cdef long _UNIX

@cython.locals(relay=Relay)
cpdef start_login(Doorstep door, object sock, str address)


cdef class Guest(EncryptingConnection):
    cdef Doorstep _door
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

    @cython.locals(relay=Relay)
    cdef _enter_like(self, Precedent precedent)

    @cython.locals(precedents=Precedents, precedent=Precedent)
    cdef _prove(self, ScramProof proof, bytes data)

    @cython.locals(key=tuple, place=tuple, pool=Places, relay=Relay)
    cdef _admitted_as(self, Precedent precedent, bytes pending)

    @cython.locals(relay=Relay, place=tuple, counted=bint, ready=ClientReady)
    cdef _become(
        self, Places pool, ParameterSet tracked, tuple key, bytes welcome, bytes received, object greet, str user
    )
