from hyperpool.relay.events cimport EventLoop
from hyperpool.relay.transient cimport TransientConnection


cdef class EncryptingConnection(TransientConnection):
    cdef public str address
    cdef public object offer
    cdef public bint encrypted
    cdef public bytes endpoint
    cdef public bint fresh
    cdef public object shaking
    cdef bint _direct

    cdef _arrive(self, EventLoop relay, object sock, str address, double deadline, object offer)
