from hyperpool.relay.transient cimport TransientConnection


cdef class Guest(TransientConnection):
    cdef object _door
    cdef object _login
    cdef object _offer
    cdef bytes _opening
    cdef object _precedent
    cdef object _proof
    cdef object _shaking
    cdef bint _direct
    cdef bint _fresh
    cdef bint _waiting
    cdef str _late
    cdef public bint local
    cdef public bint encrypted
    cdef public bint wants_console
    cdef public bint owner
    cdef public bytes endpoint
    cdef public str address
    cdef public str replication
    cdef public tuple key
    cdef public tuple place
    cdef public object requested
    cdef public object private
    cdef public object claim
