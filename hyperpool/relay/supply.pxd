from hyperpool.relay.events cimport EventLoop


cdef class Supply(EventLoop):
    cdef public object demand
    cdef public object settled
    cdef public object learned
    cdef public dict _arrivals
