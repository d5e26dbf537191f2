from hyperpool.relay.connection cimport Connection


cdef class TransientConnection(Connection):
    cdef public double deadline
