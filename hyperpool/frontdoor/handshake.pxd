from hyperpool.relay.transient cimport TransientConnection


cdef class EncryptingConnection(TransientConnection):
    cdef public str address
    cdef public object offer
    cdef public bint encrypted
    cdef public bytes endpoint
    cdef public bint fresh
    cdef public object shaking
    cdef bint _direct
