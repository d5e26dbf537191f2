cimport cython

from hyperpool.relay.system cimport raw_descriptor, receive, send

cdef class Connection


from hyperpool.relay.events cimport EventLoop


cdef class Connection:
    cdef public EventLoop relay
    cdef public object sock
    cdef public int fd
    cdef public int raw
    cdef public Py_ssize_t flow
    cdef public bint polled
    cdef public object outbox
    cdef public Py_ssize_t skip
    cdef public bytes rest
    cdef public bint dropping
    cdef public bint unread
    cdef public bint queued
    cdef public bint hung_up
    cdef public bint closed
    cdef public double since
    cdef public object number

    cdef _set_up(self, EventLoop relay, object sock)
    cpdef end(self)
    cpdef transmit(self, object data, int flags=*)
    @cython.locals(sent=Py_ssize_t)
    cpdef transmit_part(self, object data, Py_ssize_t end, int flags=*)
    @cython.locals(sent=Py_ssize_t)
    cpdef writable(self)
    @cython.locals(held=Py_ssize_t, got=Py_ssize_t, more=bint)
    cpdef Py_ssize_t receive(self, memoryview view) except -2
    cpdef readable(self, long mask)
    cpdef flushed(self)
    cpdef lost(self, str reason)
