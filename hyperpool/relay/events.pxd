cimport cython

from hyperpool.relay.system cimport Poller, read

cdef class EventLoop


from hyperpool.relay.connection cimport Connection

cdef long _IN
cdef long _OUT


cdef class EventLoop:
    cdef public object _clock
    cdef long long _number
    cdef long long _step
    cdef public double now
    cdef public long long wakeups
    cdef public Py_ssize_t much
    cdef public Py_ssize_t stream
    cdef public double beat
    cdef public object hear
    cdef public double _linger
    cdef public double _slice
    cdef public Poller _epoll
    cdef public bint _turning
    cdef public int _wake
    cdef public dict _connections
    cdef public object _again
    cdef public list _doomed
    cdef public int _attention
    cdef public object _suspended
    cdef public dict _polled
    cdef public double _due
    cdef public bytearray buffer
    cdef public memoryview view
    cdef public memoryview small_view
    cdef public Py_ssize_t small_query

    @cython.locals(number=cython.longlong)
    cpdef unique(self)
    cpdef double time(self) except *
    cpdef bint turn(self) except -1
    @cython.locals(
        poller=Poller, connection=Connection, count=int, number=int, mask=long, end=double, timeout=double, now=double,
        polled=dict, rests=bint
    )
    cpdef bint _turn(self) except -1
    @cython.locals(connection=Connection)
    cpdef _read_again(self)
    cpdef bint _is_suspended(self, Connection connection) except -1
    cpdef poll(self, Connection connection)
    cpdef listen(self, Connection connection)
    @cython.locals(connection=Connection)
    cpdef _poll(self)
    cpdef resume(self, Connection connection)
    cpdef _register(self, Connection connection, unsigned int mask=*)
